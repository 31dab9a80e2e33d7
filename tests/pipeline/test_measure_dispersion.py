"""Velocity dispersions of a survey, taken out of the indices of all that it holds."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import calibrate, stage, stale
from pipeline.block import Block
from pipeline.card import Card
from pipeline.errors import ErrorKind
from pipeline.index import Flag
from pipeline.passes import Pass, look, steps_of
from storage.schema import Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.error_table import by_hand
from tests.pipeline.scene import SPECTRA, card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, GRID
from training import calibrated

N = 60
ROUTES = (
    {"where": "z < 0.11", "model": "factors"},
    {"where": "class == 'GALAXY'", "model": "filter"},
)
KNOWN = np.arange(N) % 3 != 0
SIGMA = np.where(KNOWN, 120.0 + 2 * np.arange(N), np.nan).astype("f4")
PRODUCTS = ("indices/factors", "indices/filter")
MEASURED = ("indices/raw", "indices/raw@fs", "indices/truth@fs", *PRODUCTS)
DN4000, HDELTA, MGB = range(3)


def card_for(folder: Path, dispersion: str) -> Card:
    return card_of(folder, *ROUTES, measure={"dispersion": dispersion})


def made(card: Card) -> dict[str, xr.Dataset]:
    """The groups of a card, by the first word of their names, where two thirds have a sigma."""
    stage.reading.cache_clear()
    survey = Survey.open(card.store)
    steps = steps_of(card, survey, ["denoise", "measure"])
    work = Pass(store=card.store, snapshot=survey.snapshot, config=CONFIG, steps=tuple(steps))
    block = Block(first=0, last=N, groups=frozenset(step.group for step in steps))
    held = work.read(block)
    held._values[SPECTRA, "lsf"] = np.full((N, GRID.size), 0.6, "f2")
    held._values[SPECTRA, "vdisp"] = SIGMA
    found = work(block, held)
    return {name.replace(f"/{CONFIG}/", "/").partition("-")[0]: ds for name, ds in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("dispersion")
    saved = save(found, "factors", factors(ingested(found, N))), save(found, "filter")
    for path in saved:
        calibrated.write(path, by_hand())
    return found


@pytest.fixture(scope="module")
def kept(folder: Path) -> dict[str, xr.Dataset]:
    return made(card_for(folder, "keep"))


@pytest.fixture(scope="module")
def corrected(folder: Path) -> dict[str, xr.Dataset]:
    return made(card_for(folder, "correct"))


def rows_of(ds: xr.Dataset) -> np.ndarray:
    return np.asarray(ds["status"].to_numpy() == Status.DONE) & KNOWN


def values(ds: xr.Dataset, rows: np.ndarray, name: str = "value") -> np.ndarray:
    return np.asarray(ds[name].to_numpy()[rows], np.float64)


@pytest.mark.parametrize("name", MEASURED)
def test_without_a_dispersion_an_index_is_flagged(
    name: str, kept: dict[str, xr.Dataset], corrected: dict[str, xr.Dataset]
) -> None:
    found = corrected[name]
    done = found["status"].to_numpy() == Status.DONE
    there = np.isfinite(kept[name]["value"].to_numpy()) & KNOWN[:, None]
    np.testing.assert_array_equal(np.isfinite(found["value"].to_numpy()), there)
    flagged = (found["flag"].to_numpy() & Flag.DISPERSION) > 0
    np.testing.assert_array_equal(flagged[done], np.repeat(~KNOWN[done, None], 3, 1))
    assert np.isnan(found["error"].to_numpy()[done & ~KNOWN]).all()
    assert (found["error_kind"].to_numpy()[done & ~KNOWN] == ErrorKind.NONE).all()


@pytest.mark.parametrize("name", MEASURED[1:])
def test_what_is_on_one_frame_is_corrected_alike(
    name: str, kept: dict[str, xr.Dataset], corrected: dict[str, xr.Dataset]
) -> None:
    rows = rows_of(kept[name])
    assert rows.any()

    def change(of: str) -> np.ndarray:
        before, after = values(kept[of], rows), values(corrected[of], rows)
        steps = after - before
        return np.column_stack([steps[:, :MGB], after[:, MGB] / before[:, MGB]])

    np.testing.assert_allclose(change(name), change("indices/raw@fs"), rtol=1e-6, atol=1e-9)
    factor = change(name)[:, MGB]
    assert (factor > 1).all()
    assert np.corrcoef(factor, SIGMA[rows])[0, 1] > 0.95


def test_errors_grow_by_the_scatter_of_populations_alone(
    kept: dict[str, xr.Dataset], corrected: dict[str, xr.Dataset]
) -> None:
    for name in ("indices/raw@fs", *PRODUCTS):
        rows = rows_of(kept[name])
        before, after = (values(of[name], rows, "error") for of in (kept, corrected))
        assert (after[:, :MGB] >= before[:, :MGB]).all()
        np.testing.assert_array_equal(
            corrected[name]["error_kind"].to_numpy()[rows][:, :MGB],
            kept[name]["error_kind"].to_numpy()[rows][:, :MGB],
        )
    rows = rows_of(kept["indices/factors"])
    scatter = [
        np.square(values(corrected[name], rows, "error")[:, HDELTA])
        - np.square(values(kept[name], rows, "error")[:, HDELTA])
        for name in ("indices/raw@fs", "indices/factors")
    ]
    np.testing.assert_allclose(scatter[0], scatter[1], rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("name", PRODUCTS)
def test_tables_of_errors_are_looked_up_before_the_correction(
    name: str, kept: dict[str, xr.Dataset], corrected: dict[str, xr.Dataset]
) -> None:
    rows = rows_of(kept[name])
    shift = [
        values(corrected[name], rows, of)[:, :MGB] - values(kept[name], rows, of)[:, :MGB]
        for of in ("value", "deshrunk")
    ]
    np.testing.assert_allclose(shift[1], shift[0], atol=2e-6)
    assert np.isfinite(shift[0]).all()
    raw = values(corrected["indices/raw@fs"], rows)
    expected = values(corrected[name], rows) - raw
    np.testing.assert_allclose(values(corrected[name], rows, "difference"), expected, atol=1e-6)


def test_mocks_are_measured_for_both_alike(folder: Path) -> None:
    keep, correct = (card_for(folder, each) for each in ("keep", "correct"))
    assert calibrate.recipe(keep) == calibrate.recipe(correct)


def test_the_correction_makes_indices_stale_and_says_how_it_was_done(tmp_path: Path) -> None:
    ingested(tmp_path, 12)
    kept, card = (
        card_of(tmp_path, measure={"dispersion": each, "inputs": ["raw"]})
        for each in ("keep", "correct")
    )
    for each in (kept, card):
        with writing(each.store, "test") as writer:
            steps = steps_of(each, Survey.open(each.store), ["measure"])
            stale.prepare(writer, each, steps, Survey.open(each.store))
        there = Survey.open(each.store).attrs(f"indices/{CONFIG}/raw")
        if each is kept:
            assert "dispersion" not in there["recipe"]
            (why, *_) = look(card, ["measure"])[0].why
            assert why.startswith("dispersion: None -> {'templates': ['computed']")
    ways = {"Dn4000": "difference", "HdeltaF": "difference", "Mgb": "factor"}
    assert there["recipe"]["dispersion"]["ways"] == ways
    assert there["flags"]["128"] == "DISPERSION"
    assert not any(found.why[0].startswith("dispersion") for found in look(card, ["measure"]))
