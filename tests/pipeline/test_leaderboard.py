"""The leaderboard: every model once, in order, with what it costs; nothing is left out silently."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.card import Card
from pipeline.leaderboard import entries, groups, leaderboard, machine, short, speed
from pipeline.standings import Entry, bins, mean, table
from tests.pipeline.scene import card_of, save
from tests.pipeline.stores import FRAME, verdict_of
from tests.pipeline.test_report import Page
from training import checkpoint, registry
from training.recipe import ModelCard

GOOD, POOR = verdict_of(0.45, 1500), verdict_of(0.95, 1500)
SPLIT = {"salt": "specmill", "shares": {"train": 0.7, "val": 0.3}}


def trained(folder: Path, name: str, verdict: Any = GOOD, **training: Any) -> Path:
    """A filter as train leaves it."""
    made = ModelCard(model="butterworth", options={"cutoff": 0.5 + len(name) / 100})
    about = checkpoint.Card(
        model=made.model,
        options=made.options,
        frame=FRAME,
        training={"epochs": 3, "split": SPLIT, "verdict_mock": "1f2e3d4c", **training},
    )
    path = checkpoint.save(folder / "checkpoints", name, made.build(FRAME.grid), about)
    if verdict is not None:
        checkpoint.write_verdict(path, verdict.model_dump(mode="json"))
    registry.set_alias(folder / "checkpoints", name, path)
    return path


def curves(folder: Path, run: str, *seconds: float) -> None:
    (folder / "training" / run).mkdir(parents=True)
    lines = [json.dumps({"epoch": n + 1, "seconds": s}) for n, s in enumerate(seconds)]
    (folder / "training" / run / "curves.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder = tmp_path_factory.mktemp("run")
    trained(folder, "worse", POOR)
    trained(folder, "better")
    trained(folder, "other", verdict_mock="99999999")
    trained(folder, "unjudged", None)
    curves(folder, "better-11111111", 1.0, 2.0, 4.0)
    curves(folder, "better-22222222", 9.0)
    return card_of(folder)


@pytest.fixture(scope="module")
def found(card: Card) -> list[Entry]:
    return entries(card)


@pytest.fixture(scope="module")
def page(card: Card) -> str:
    path, _ = leaderboard(card)
    return path.read_text()


def test_models_that_pass_come_first_and_unjudged_ones_not_at_all(found: list[Entry]) -> None:
    assert [entry.alias for entry in found] == ["better", "other", "worse"]
    assert found[0].score < found[-1].score
    assert found[0].score == GOOD.score


def test_the_cost_of_training_is_that_of_the_run_with_these_epochs(found: list[Entry]) -> None:
    seconds = {entry.alias: entry.seconds for entry in found}
    assert seconds == {"better": 7.0, "other": None, "worse": None}


def test_models_of_other_mocks_or_splits_are_not_compared(found: list[Entry]) -> None:
    parts = [[entry.alias for entry in part] for part in groups(found)]
    assert parts == [["better", "worse"], ["other"]]


def test_a_damaged_checkpoint_is_named_and_left_out(
    card: Card, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, "good")
    broken = trained(tmp_path, "broken")
    (broken / "model.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert [entry.alias for entry in entries(card_of(tmp_path))] == ["good"]
    assert "broken is left out: " in caplog.text


def test_a_speed_is_measured_on_one_thread_and_gives_the_threads_back(card: Card) -> None:
    import torch

    before = torch.get_num_threads()
    assert speed(checkpoint.load(registry.resolve(card.checkpoints, "better"))) > 10
    assert torch.get_num_threads() == before


def test_an_entry_says_which_indices_fail_which_test(found: list[Entry]) -> None:
    worse = found[-1]
    failing = [f for f in POOR.findings if not f.passed]
    assert failing
    for finding in failing:
        assert finding.index in worse.test(finding.test, finding.bin)
        assert worse.decides(finding.test, finding.bin) == any(
            f.decides for f in failing if (f.test, f.bin) == (finding.test, finding.bin)
        )
    assert found[0].test("trivial", "5-6") == ()


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page: str) -> None:
    read = Page(page)
    assert read.open == []
    assert len(read.images) == 4
    assert all(image.startswith("data:image/svg+xml;base64,") for image in read.images)
    assert not [link for link in read.links if link.startswith(("http", "//"))]


def test_the_page_shows_every_model_and_number(page: str, found: list[Entry]) -> None:
    words = " ".join(Page(page).words.split())
    for entry in found:
        assert entry.checkpoint in words
        assert entry.verdict.reason in words
        for index, s in entry.verdict.statistics["5-6"].items():
            assert index in words
            assert f"{s.delta_o.value / s.noise.value:.2f}" in words
    assert machine() in words
    assert "train 0.7, val 0.3" in words
    assert "1f2e3d4c" in words
    assert words.count("unjudged") == 0


def test_the_numbers_are_beside_the_page(card: Card, page: str) -> None:
    told = json.loads((Path(card.run.dir) / "leaderboard" / "leaderboard.json").read_text())
    assert [model["alias"] for model in told["models"]] == ["better", "other", "worse"]
    ratio = told["models"][0]["delta_o_over_noise"]["5-6"]["Mgb"]
    s = GOOD.statistics["5-6"]["Mgb"]
    assert ratio == s.delta_o.value / s.noise.value
    assert told["machine"] == machine()


def test_the_table_gives_means_over_the_indices(found: list[Entry]) -> None:
    ratios = [s.delta_o.value / s.noise.value for s in GOOD.statistics["2-3"].values()]
    assert mean(GOOD, "2-3") == pytest.approx(sum(ratios) / 3)
    assert mean(GOOD, "90-91") != mean(GOOD, "90-91")
    shown = table(found)
    assert [str(column.header) for column in shown.columns][1:4] == bins(found)
    assert shown.row_count == 3


def test_a_run_without_verdicts_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "unjudged", verdict=None)
    with pytest.raises(ValueError, match=r"no model with a verdict; `specmill train CARD`"):
        leaderboard(card_of(tmp_path))


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (12.34, "12.3"), (12345.6, "12,346")],
)
def test_numbers_are_short(value: float | None, words: str) -> None:
    assert short(value) == words
