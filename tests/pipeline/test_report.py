"""The page for people: it says what happened, whatever is missing."""

import io
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.card import Card
from pipeline.evaluate import evaluate
from pipeline.query import query
from pipeline.report import is_done, report, table
from storage.schema import REASONS, Reason
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.stores import CONFIG, PRODUCT, Known, build, put, put_verdict, verdict_of

BAD = "butterworth-00aabbcc"


class Page(HTMLParser):
    """Text, attributes and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.images += [values["src"] or ""] if tag == "img" else []
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("run")
    known = build(folder, examples=6)
    put_verdict(known.card, PRODUCT, verdict_of(0.45, 1500))
    put_verdict(known.card, BAD, verdict_of(0.95, 1500))
    (folder / "times.json").write_text(json.dumps({"ingest": 12.3, "train": 61.0}))
    evaluate(known.card)
    report(known.card)
    return known


@pytest.fixture(scope="module")
def text(known: Known) -> str:
    return (Path(known.card.run.dir) / "report" / "index.html").read_text()


def test_page_is_whole_and_needs_nothing_from_elsewhere(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert page.links == page.images
    assert all(image.startswith("data:image/") for image in page.images)
    assert "http" not in text
    assert "<script" not in text
    assert len(text) < 3_000_000


def test_page_says_what_ran(text: str, known: Known) -> None:
    words = Page(text).words
    for expected in (
        known.card.digest,
        Survey.open(known.card.store).snapshot,
        PRODUCT,
        "ingest 12.3 s, train 61.0 s; together 73.3 s",
    ):
        assert expected in words


def test_page_lists_what_was_left_out_with_its_reason(text: str) -> None:
    # Words of a file's making are shown, never run.
    assert "&lt;truncated&gt; after 11520 bytes; fetch it again" in text
    words = Page(text).words
    for reason in (Reason.UNREADABLE, Reason.NOT_SCIENCE, Reason.OUTSIDE_FOOTPRINT):
        assert REASONS[reason] in words
    assert "class 'STAR' is not GALAXY" in words


def test_page_gives_verdicts_in_plain_words(text: str) -> None:
    words = re.sub(r"\s+", " ", Page(text).words)
    assert "its output follows the noise of its input, not the galaxy" in words
    assert "copies the noise: " in words
    assert "passes: no test fails where it decides" in words


def test_page_has_no_number_that_is_none(text: str) -> None:
    words = Page(text).words
    assert not re.search(r"\b(nan|None|inf)\b", words)


def test_page_shows_every_figure(text: str) -> None:
    # Ledger, verdicts, curves, histograms, and six spectra.
    images = Page(text).images
    assert len(images) == 4 + 6
    assert sum(image.startswith("data:image/png") for image in images) == 6


def test_page_ends_with_commands_that_run(text: str, known: Known) -> None:
    commands = re.findall(r"specmill query (\S+) &#34;(.*?)&#34;|query (\S+) \"(.*?)\"", text)
    found = [(unescape(a or c), unescape(b or d)) for a, b, c, d in commands]
    assert len(found) == 3
    for store, expression in found:
        assert store == known.card.store
        query(store, expression, console=Console(quiet=True))


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(text: str, known: Known) -> None:
    assert Path(report(known.card)).read_text() == text


@pytest.mark.slow
def test_done_until_something_that_it_shows_changes(tmp_path: Path) -> None:
    known = build(tmp_path, n=6)
    assert not is_done(known.card)
    report(known.card)
    assert is_done(known.card)
    evaluate(known.card)
    assert not is_done(known.card)
    report(known.card)
    assert is_done(known.card)
    put_verdict(known.card, PRODUCT, verdict_of())
    assert not is_done(known.card)


@pytest.mark.slow
def test_page_without_truth_verdict_or_evaluation_says_so(tmp_path: Path) -> None:
    known = build(tmp_path, n=12, truth=False, verdict="missing")
    words = Page(Path(report(known.card)).read_text()).words
    assert "no model was judged by this run" in words
    assert "have not been evaluated" in words
    evaluate(known.card)
    words = re.sub(r"\s+", " ", Page(Path(report(known.card)).read_text()).words)
    assert "Against the survey's own best fit" in words
    assert "it is a partner, not the truth" in words


def test_page_without_a_product_says_so(tmp_path: Path) -> None:
    known = build(tmp_path, n=6, products=())
    evaluate(known.card)
    words = Page(Path(report(known.card)).read_text()).words
    assert "nothing was denoised" in words
    assert "There is none" in words


def test_page_without_a_denoised_row_says_so(tmp_path: Path, known: Known) -> None:
    path = str(tmp_path / "survey.icechunk")
    Survey.create(path)
    old = Survey.open(known.card.store)
    with writing(path, "test") as writer:
        for group in (f"spectra/{CONFIG}", f"denoised/{CONFIG}/{PRODUCT}"):
            ds = old.dataset(group).load()
            if group.startswith("denoised"):
                ds["status"].values[:], ds["reason_code"].values[:] = 3, Reason.OUTSIDE_FOOTPRINT
            put(writer, group, ds, old.attrs(group))
    settings = known.card.model_dump()
    settings["run"]["dir"], settings["survey"]["store"] = str(tmp_path), path
    card = Card.model_validate(settings)
    evaluate(card)
    words = Page(Path(report(card)).read_text()).words
    assert "nothing to hold it against" in words
    assert "no spectrum was denoised that the model was not trained on" in words
    assert "80 observations left out, one by one" in words


def test_long_lists_are_cut_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.MOST_LISTED", 2)
    words = Page(Path(report(build(tmp_path, n=6).card)).read_text()).words
    assert "3 observations left out, one by one (the first 2)" in words


def test_closing_table_has_every_model_and_its_reason(known: Known) -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table(known.card))
    text = console.export_text()
    for name in ("ppca", "butterworth", "Dn4000", "HdeltaF", "Mgb"):
        assert name in text
    assert "butterworth fails: copies the noise" in text
    assert "ppca passes: " in text
    assert "nan" not in text


def test_report_of_no_store_says_what_makes_it(tmp_path: Path) -> None:
    card = Card.model_validate({"run": {"dir": str(tmp_path)}, "survey": {"root": "files"}})
    assert not is_done(card)
    with pytest.raises(FileNotFoundError, match="`specmill ingest` makes one"):
        report(card)
