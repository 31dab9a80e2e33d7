"""The command: verbs, words, exit status."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import index
from pipeline.card import CARDS, load
from pipeline.cli import FAILED, OK, QUARANTINED, USAGE, main
from pipeline.stages import ORDER
from storage.lease import Lease
from storage.names import shelf
from storage.readers import sdss
from storage.store import Survey, exists
from tests.pipeline.runs import specmill
from tests.pipeline.scene import SPECTRA, ingested, save
from tests.storage.sdss_mock import mock

SDSS = sdss.build()

VERBS = {
    *(*ORDER, "run", "init", "query", "status", "history", "tag", "expire", "migrate", "verify"),
    *("join", "export", "import", "doctor", "submit", "jobs", "list", "reprocess", "compare"),
    *("denoise", "measure", "coverage", "release", "rederive"),
    *("sample", "tune", "leaderboard", "outside"),
}


@dataclass(frozen=True)
class Said:
    """What the command answered."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: what starts no workers needs no process of its own."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["specmill", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        said = capsys.readouterr()
        return Said(code if isinstance(code, int) else OK, said.out, said.err)

    return run


@pytest.fixture
def card(tmp_path: Path) -> Path:
    found = tmp_path / "card.toml"
    found.write_text(f"""
[run]
dir = "{tmp_path}"
[survey]
root = "{tmp_path / "files"}"
[measure]
inputs = ["raw"]
[cluster]
memory = "1GiB"
""")
    return found


def test_the_map_lists_exactly_the_verbs_that_exist(command: Command) -> None:
    said = command("--help")
    assert said.status == OK
    listed = re.findall(r"^  ([a-z]+) ", said.out[said.out.index("Commands:") :], re.MULTILINE)
    assert set(listed) == VERBS
    assert len(listed) == len(VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_says_what_it_takes(command: Command, verb: str) -> None:
    said = command(verb, "--help")
    assert said.status == OK
    assert f"Usage: specmill {verb}" in said.out


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("readers", shelf("storage.readers")),
        ("models", [file.stem for file in (CARDS / "models").glob("*.toml")]),
        ("indices", index.names()),
        ("backends", shelf("deploy.backends")),
        ("mocks", shelf("storage.mocks")),
        ("samples", [file.stem for file in (CARDS / "samples").glob("*.toml")]),
    ],
)
def test_a_shelf_is_listed_by_the_names_that_cards_use(
    command: Command, what: str, expected: list[str]
) -> None:
    said = command("list", what)
    assert said.status == OK
    words = set(re.findall(r"[\w-]+", said.out))
    assert set(expected) <= words
    if what == "models":
        assert re.search(r"ppca .*\d{2,3},\d{3}", said.out)


def test_the_models_of_a_run_are_listed_with_what_they_are_worth(
    command: Command, card: Path, tmp_path: Path
) -> None:
    save(tmp_path, "low")
    save(tmp_path, "unjudged", verdict=None, cutoff=0.5)
    said = command("list", "models", "--card", str(card))
    assert said.status == OK
    words = " ".join(re.sub("[│|]", " ", said.out).split())
    assert "low" in words
    assert "passes" in words
    assert "unjudged" in words
    assert "missing" in words


def test_a_sample_is_shown_cut_by_cut(command: Command, card: Path, tmp_path: Path) -> None:
    ingested(tmp_path, 80)
    strata = "sample.strata={by = 'z', edges = [0.0, 0.08, 1.0], each = 7}"
    said = command("sample", str(card), "--set", strata)
    assert said.status == OK
    lines = [re.sub(r"\s+", " ", line).strip() for line in said.out.splitlines()]
    assert "sky objects no sky fibre, no standard star 79 78 98.7" in lines
    assert any(line.startswith("strata 7 a bin of z 77 14") for line in lines)
    assert any(re.fullmatch(r"0 0\.08 \d+ 7", line) for line in lines)
    assert lines[-1].startswith("14 spectra: train")


def test_init_writes_a_card_that_is_valid_and_never_over_another(
    command: Command, tmp_path: Path
) -> None:
    said = command("init", str(tmp_path / "mine"))
    target = tmp_path / "mine" / "card.toml"
    assert said.status == OK
    assert str(target) in said.out
    assert load(str(target)).run.dir
    again = command("init", str(tmp_path / "mine"))
    assert again.status == USAGE
    assert "is there already; edit it, or give another folder" in again.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("fly",), "No such command 'fly'"),
        (("run",), "Missing argument 'CARD'"),
        (("run", "CARD", "--sat", "x"), "No such option"),
        (("run", "nowhere.toml"), "nowhere.toml: no such card; `specmill init DIR` writes one"),
        (("run", "CARD", "--set", "seed"), "--set seed: expected table.key=value"),
        (
            ("run", "CARD", "--set", "run.sead=1"),
            "unknown key 'sead' in [run]; did you mean 'seed'",
        ),
        (("simulate", "CARD"), "the card has no table for simulate; add one"),
        (("list", "mocks", "--card", "CARD"), "list mocks --card: only models are of a card"),
        (("tune", "CARD"), "the card has no table for tune; add [tune]"),
        (("leaderboard", "CARD"), "no model with a verdict; `specmill train CARD` makes them"),
        (("sample", "CARD"), "no survey store here; `specmill ingest` makes one"),
        (("list", "planets"), "nothing to list by 'planets' (there: readers, models"),
        (("submit", "fly", "CARD"), "'fly' is no stage (there: run, simulate"),
        (("submit", "run", "CARD", "--backend", "slrum"), "did you mean 'slurm'?"),
        (("status", "gone.icechunk"), "no survey store here; `specmill ingest` makes one"),
        (("query", "gone.icechunk", "z < 1"), "no survey store here"),
    ],
    ids=lambda given: " ".join(given[:3]) if isinstance(given, tuple) else "",
)
def test_wrong_usage_is_2_and_says_why(
    command: Command, card: Path, words: tuple[str, ...], expected: str
) -> None:
    said = command(*(str(card) if word == "CARD" else word for word in words))
    assert said.status == USAGE
    assert expected in " ".join(said.err.replace("│", " ").split())
    assert "Traceback" not in said.err


def test_a_store_that_has_nothing_of_a_name_says_what_it_has(
    command: Command, tmp_path: Path
) -> None:
    said = command("query", ingested(tmp_path, 80), "zz < 0.1")
    assert said.status == USAGE
    assert "'zz'" in said.err
    found = command("query", str(tmp_path / "survey.icechunk"), "z < 0.1", "--limit", "3")
    assert found.status == OK
    assert "spectra, the first 3 shown" in found.out


def test_a_card_without_its_models_is_refused_before_any_work(
    command: Command, tmp_path: Path
) -> None:
    files, run = tmp_path / "files", tmp_path / "run"
    SDSS.write(mock(3), str(files), "sdss")
    said = command(
        *("run", str(CARDS / "sdss.toml"), "--set", f"survey.root={files}"),
        *("--set", f"run.dir={run}", "--set", f"denoise.checkpoints={tmp_path / 'none'}"),
    )
    assert said.status == USAGE
    assert f"{tmp_path / 'none'}: no checkpoints; `specmill train CARD`" in said.err
    assert "Traceback" not in said.err
    assert not run.exists()


@pytest.mark.cluster
def test_quarantined_inputs_are_1_and_are_printed(card: Path, tmp_path: Path) -> None:
    SDSS.write(mock(3), str(tmp_path / "files"), "sdss")
    first = min((tmp_path / "files").rglob("spec-*.fits"))
    first.write_bytes(first.read_bytes()[:11520])
    said = specmill(tmp_path, "ingest", str(card))
    assert said.returncode == QUARANTINED, said.stderr
    assert f"quarantined: {first.name}" in said.stdout.replace(f"{first.parent.name}/", "")
    assert "1 quarantined in spectra/sdss; `specmill query" in said.stdout
    store = str(tmp_path / "survey.icechunk")
    assert Survey.open(store).rows(SPECTRA) == 3
    again = specmill(tmp_path, "ingest", str(card))
    assert again.returncode == QUARANTINED
    assert "ingest: nothing to do" in again.stdout


@pytest.mark.cluster
@pytest.mark.slow
def test_a_second_coordinator_is_refused_in_words(
    command: Command, card: Path, tmp_path: Path
) -> None:
    lease = Lease(ingested(tmp_path, 80), "somebody")
    said = command("measure", str(card))
    lease.release()
    assert said.status == FAILED
    assert "somebody (pid" in said.err
    assert "wait for it" in said.err
    assert "Traceback" not in said.err
    assert command("measure", str(card)).status == QUARANTINED


def test_a_fault_of_ours_is_3_with_its_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = ingested(tmp_path, 80)
    assert exists(store)

    def broken(*_: object) -> None:
        raise RuntimeError("this is a fault")

    monkeypatch.setattr(Survey, "groups", broken)
    said = command("status", store)
    assert said.status == FAILED
    assert "this is a fault" in said.err
    assert "Traceback" in said.err
