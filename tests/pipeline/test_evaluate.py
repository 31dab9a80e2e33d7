"""The judgement on a survey, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.card import Card
from pipeline.evaluate import FILE, evaluate, is_done
from pipeline.score import Three, score
from storage.schema import Split
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.stores import CEILING, CONFIG, FRAME, INDICES, PRODUCT, Known, build


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return build(tmp_path_factory.mktemp("survey"))


def test_numbers_are_those_of_the_rows_that_were_not_trained_on(known: Known) -> None:
    product = evaluate(known.card)["products"][0]
    rows = known.done & (known.columns["split"].to_numpy() != Split.TRAIN)
    assert product["product"] == PRODUCT
    assert product["reference"] == f"truth@{FRAME.label}"
    assert product["trained_here"]
    assert (product["done"], product["fair"]) == (known.done.sum(), rows.sum())
    for column, index in enumerate(INDICES):
        found = product["indices"][index]
        true, raw, output = (x[rows, column] for x in (known.truth, known.raw, known.output))
        assert found["n"] == rows.sum()
        assert found["unit"] == INDICES[index]
        assert found["noise"] == pytest.approx(np.std(raw - true))
        assert found["delta_o"] == pytest.approx(np.std(output - true))
        assert found["delta_n"] == pytest.approx(np.std(output - raw))
        assert found["trivial"] == pytest.approx(np.std(true))
        assert found["bias"] == pytest.approx(np.mean(output - true))
        assert found["ratio"] == pytest.approx(found["delta_o"] / found["noise"])
        below = rows & (known.columns["snr_g"].to_numpy() <= CEILING)
        kept = (known.output - known.truth)[below, column]
        assert found["trusted"]["n"] == below.sum() < rows.sum()
        assert found["trusted"]["delta_o"] == pytest.approx(np.std(kept))
        error = 0.3 * np.array([0.4, 8.0, 7.0])[column] / known.columns["snr_g"].to_numpy()[rows]
        assert found["coverage"] == pytest.approx(np.mean(np.abs(output - true) < error))


def test_another_runs_model_may_be_judged_on_all_rows(known: Known, tmp_path: Path) -> None:
    settings = known.card.model_dump(exclude={"train"})
    settings["run"]["dir"] = str(tmp_path)
    settings["denoise"]["checkpoints"] = str(tmp_path / "other" / "checkpoints")
    product = evaluate(Card.model_validate(settings))["products"][0]
    assert not product["trained_here"]
    assert product["fair"] == known.done.sum()


def test_a_survey_without_truth_is_held_against_its_best_fit(tmp_path: Path) -> None:
    product = evaluate(build(tmp_path, n=12, truth=False).card)["products"][0]
    assert product["reference"] == f"model@{FRAME.label}"
    assert "best fit" in product["reference_words"]
    # Six fair spectra: numbers, but no curve.
    assert product["indices"]["Mgb"]["n"] == product["fair"] == 6
    assert product["indices"]["Mgb"]["delta_o"] > 0
    assert product["indices"]["Mgb"]["curve"] == {}


def test_few_spectra_give_null_and_never_nan(tmp_path: Path) -> None:
    card = build(tmp_path, n=6).card
    evaluate(card)
    text = (tmp_path / FILE).read_text()
    assert "NaN" not in text
    found = json.loads(text)["products"][0]["indices"]["Mgb"]
    assert found["n"] < 5
    assert (found["delta_o"], found["ratio"], found["coverage"]) == (None, None, None)


def test_done_until_the_store_or_the_card_changes(tmp_path: Path) -> None:
    known = build(tmp_path, n=6)
    assert not is_done(known.card)
    evaluate(known.card)
    assert is_done(known.card)
    assert not is_done(
        known.card.model_copy(update={"run": known.card.run.model_copy(update={"seed": 2})})
    )
    with writing(known.card.store, "test") as writer:
        writer.set_attrs(f"spectra/{CONFIG}", {"note": "changed"})
        writer.commit("change")
    assert not is_done(known.card)


def test_what_is_written_is_what_is_returned(known: Known) -> None:
    found = evaluate(known.card)
    assert json.loads((Path(known.card.run.dir) / FILE).read_text()) == found
    assert found["snapshot"] == Survey.open(known.card.store).snapshot
    assert found["card"] == known.card.digest
    assert [p.name for p in Path(known.card.run.dir).glob("*.partial")] == []


def test_store_that_is_not_there_says_what_makes_it(tmp_path: Path) -> None:
    card = Card.model_validate({"run": {"dir": str(tmp_path)}, "survey": {"root": "files"}})
    assert not is_done(card)
    with pytest.raises(FileNotFoundError, match="no survey store here; `specmill ingest` makes"):
        evaluate(card)


def _three(n: int, seed: int = 0) -> Three:
    rng = np.random.default_rng(seed)
    reference = rng.normal(2.0, 1.5, n)
    snr = rng.uniform(2, 20, n)
    noise = rng.normal(size=n) * 10 / snr
    output = reference + 0.5 * rng.normal(size=n) * 10 / snr
    error = 0.5 * 10 / snr
    return Three(snr=snr, output=output, raw=reference + noise, reference=reference, error=error)


def test_known_scatter_is_found_in_every_window() -> None:
    found = score(_three(20_000), "Angstrom")
    curve = {key: np.array(values) for key, values in found.curve.items()}
    # noise is 10 / snr: each window of 500 knows it to 3 %, and spans little of S/N.
    expected = 10 / curve["snr"]
    inside = (curve["snr"] > 4) & (curve["snr"] < 19)
    np.testing.assert_allclose(curve["noise"][inside], expected[inside], rtol=0.12)
    np.testing.assert_allclose((curve["delta_o"] / curve["noise"])[inside], 0.5, rtol=0.15)
    np.testing.assert_allclose(curve["trivial"][inside], 1.5, rtol=0.12)
    # Gaussian here: blind to outliers or not, the same.
    np.testing.assert_allclose(curve["noise_mad"][inside], expected[inside], rtol=0.2)
    assert (np.diff(curve["snr"]) > 0).all()
    assert found.coverage == pytest.approx(0.683, abs=0.01)


def test_robust_delta_is_blind_to_an_outlier() -> None:
    clean = _three(2000)
    output = clean.output.copy()
    output[0] += 1e4
    bad = Three(**{**vars(clean), "output": output})
    one, two = score(clean, "1"), score(bad, "1")
    assert one.delta_o is not None
    assert two.delta_o is not None
    assert two.delta_o > 50 * one.delta_o
    assert two.delta_o_mad == pytest.approx(one.delta_o_mad, rel=0.01)


def test_error_of_the_ratio_is_its_scatter_over_samples() -> None:
    found = [score(_three(300, seed), "1") for seed in range(200)]
    scatter = np.std([one.ratio for one in found])
    claimed = np.mean([one.ratio_error for one in found])
    assert claimed == pytest.approx(scatter, rel=0.25)


def test_copying_the_input_has_ratio_one_and_no_delta_n() -> None:
    given = _three(500)
    found = score(Three(**{**vars(given), "output": given.raw}), "1")
    assert (found.ratio, found.delta_n) == (1.0, 0.0)


def test_errors_that_are_not_there_give_no_coverage() -> None:
    given = _three(500)
    found = score(Three(**{**vars(given), "error": np.full(500, np.nan)}), "1")
    assert (found.coverage, found.n_error) == (None, 0)
