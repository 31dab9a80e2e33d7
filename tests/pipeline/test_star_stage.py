"""Stars of a survey: who is measured, where fits start, what is written where nothing is."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from pipeline import product as products
from pipeline import stage, star_stage
from pipeline.block import Bad, Block
from pipeline.card import Card
from pipeline.held import Held
from pipeline.passes import Pass, is_done, steps_of
from pipeline.star_stage import MeasureStars
from pipeline.stars.fit import Stars, measure_stars, start_values
from pipeline.verify import verify
from storage.schema import Reason, Status
from storage.store import Survey
from tests.pipeline.star_survey import (
    BAD,
    GALAXY,
    GRID,
    SKY,
    SPECTRA,
    N,
    card,
    do,
    filter_on,
    ingested,
)
from tests.pipeline.stores import CONFIG
from training.frames import named

pytestmark = pytest.mark.cluster

C_KMS = 299792.458
NUMBERS = ("velocity", "teff", "logg", "feh", "alpha_m")
ROUTES = {"where": "dec < 10", "model": "smooth"}, {"model": "none", "reason": "too far north"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stars")


@pytest.fixture(scope="module")
def truth(folder: Path) -> xr.Dataset:
    return ingested(folder)


@pytest.fixture(scope="module")
def measured(folder: Path, truth: xr.Dataset, client: Client) -> Card:
    """Stars that are denoised in the south, and measured from both."""
    filter_on(folder, "smooth")
    found = card(folder, *ROUTES, stars=["raw", "denoised"])
    do("denoise", found, client)
    do("measure", found, client)
    return found


def group(asked: Card, name: str) -> xr.Dataset:
    """Stars, by the beginning of their input's name."""
    survey = Survey.open(asked.store)
    (found,) = (g for g in survey.groups() if g.startswith(f"stars/{CONFIG}/{name}"))
    return survey.dataset(found).load()


def rows_of(asked: Card, name: str, first: int, last: int, *bad: Bad) -> xr.Dataset:
    """What a worker makes of rows, in this process."""
    survey = Survey.open(asked.store)
    steps = [s for s in steps_of(asked, survey, ["measure"]) if isinstance(s, MeasureStars)]
    (step,) = (s for s in steps if s.input.alias == name)
    work = Pass(store=asked.store, snapshot=survey.snapshot, config=CONFIG, steps=(step,))
    block = Block(first=first, last=last, groups=frozenset([step.group]), bad=bad)
    return work(block, work.read(block))[step.group]


def test_stars_are_what_the_mock_drew(measured: Card, truth: xr.Dataset) -> None:
    found = group(measured, "raw")
    done = found["status"].to_numpy() == Status.DONE
    assert done.sum() == N - 3
    velocity = (found["velocity"] - C_KMS * truth["z"]).to_numpy()[done]
    assert np.abs(velocity / found["velocity_err"].to_numpy()[done]).max() < 4
    assert np.median(np.abs(velocity)) < 5
    for name, unlike in (("teff", 150), ("logg", 0.6), ("feh", 0.3)):
        assert np.median(np.abs(found[name] - truth[name]).to_numpy()[done]) < unlike, name


def test_what_is_no_star_is_counted_and_not_a_number(measured: Card) -> None:
    for name in ("raw", "smooth"):
        found = group(measured, name)
        rows = [GALAXY, SKY, BAD]
        assert (found["status"].to_numpy()[rows] == Status.NOT_APPLICABLE).all()
        assert found["reason_code"].to_numpy()[rows].tolist() == [
            Reason.NOT_A_STAR,
            Reason.NOT_SCIENCE,
            Reason.UPSTREAM_QUARANTINED,
        ]
        for number in NUMBERS:
            assert np.isnan(found[number].to_numpy()[rows]).all(), number
        assert len(found["status"]) == N
        assert not (found["status"] == Status.PENDING).any()


def test_a_star_without_a_product_has_no_fit_from_one(measured: Card) -> None:
    found = group(measured, "smooth")
    north = Survey.open(measured.store).read_column(SPECTRA, "dec") >= 10
    assert 5 < north.sum() < N - 5
    done = found["status"].to_numpy() == Status.DONE
    assert not (done & north).any()
    alone = found["reason_code"].to_numpy()[north & (np.arange(N) > BAD)]
    assert (alone == Reason.UPSTREAM_NOT_APPLICABLE).all()


def test_the_observed_spectrum_is_what_is_fitted(measured: Card) -> None:
    survey = Survey.open(measured.store)
    ds = survey.dataset(SPECTRA).load()
    flux, ivar = ds["flux"].to_numpy(), ds["ivar"].to_numpy()
    raw, smooth = group(measured, "raw"), group(measured, "smooth")
    done = smooth["status"].to_numpy() == Status.DONE
    steps = {s.input.alias: s for s in steps_of(measured, survey, ["measure"])}
    fitted = steps["raw"].templates.made()
    alike(measure_stars(GRID.wavelength, flux[done], ivar[done], templates=fitted), raw, done)
    made = survey.dataset(steps["smooth"].input.group).load()
    frame = named("star")
    batch = frame.on(GRID).to(flux, ivar, ds["z"].to_numpy(), ds["ebv"].to_numpy())
    weight = batch.weight / batch.scale[:, None] ** 2
    start = start_values(
        frame.grid.wavelength, made["flux"].to_numpy()[done], weight[done], templates=fitted
    )
    expected = measure_stars(GRID.wavelength, flux[done], ivar[done], templates=fitted, start=start)
    alike(expected, smooth, done)
    steps_taken = raw["iterations"] - smooth["iterations"].astype(int)
    assert (steps_taken.to_numpy()[done] != 0).any()


def alike(expected: Stars, found: xr.Dataset, done: np.ndarray) -> None:
    for name, values in expected._asdict().items():
        have = found[name].to_numpy()[done]
        np.testing.assert_allclose(have, values.numpy(), rtol=3e-7, atol=1e-7, err_msg=name)


def test_every_group_has_units_and_provenance(measured: Card) -> None:
    survey = Survey.open(measured.store)
    groups = [name for name in survey.groups() if name.startswith("stars/")]
    assert len(groups) == 2
    for name in groups:
        ds, about = survey.dataset(name), survey.attrs(name)
        assert [n for n, v in ds.variables.items() if "units" not in v.attrs] == []
        assert {"input", "input_snapshot", "code_version", "card_digest", "recipe"} <= set(about)
        assert about["templates"]["physics"] == "toy"
        assert about["start"] == ("raw" if name.endswith("/raw") else "smooth")
    assert is_done(measured)
    assert [f for f in verify(measured.store) if f.group.startswith("stars/")] == []


def test_the_line_spread_is_that_of_the_survey(measured: Card) -> None:
    (step, _) = steps_of(measured, Survey.open(measured.store), ["measure"])
    curve = np.array(step.templates.chosen.line_spread)
    lsf = Survey.open(measured.store).dataset(SPECTRA)["lsf"][0].to_numpy().astype("f8")
    # A pixel of the survey is 69.03 km/s, and its box adds a twelfth of its square.
    expected = 69.03 * np.sqrt(np.interp(8500, GRID.wavelength, lsf) ** 2 + 1 / 12)
    assert np.interp(8500, *curve.T) == pytest.approx(expected, rel=2e-3)


def test_a_block_of_any_size_gives_the_same_bits(
    measured: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(star_stage, "CHUNK_ROWS", 8)
    for name in ("raw", "smooth"):
        whole = rows_of(measured, name, 0, N)
        parts = xr.concat(
            [rows_of(measured, name, first, first + 8) for first in range(0, N, 8)], "spectrum"
        )
        for variable in whole.data_vars:
            one, other = (ds[variable].to_numpy().tobytes() for ds in (whole, parts))
            assert one == other, (name, variable)


def test_company_changes_a_star_by_the_rounding_of_its_last_bit(measured: Card) -> None:
    bad = Bad(row=9, code=Reason.FAILED, text="left out")
    whole, without = rows_of(measured, "raw", 0, N), rows_of(measured, "raw", 0, N, bad)
    alone = xr.concat([rows_of(measured, "raw", k, k + 1) for k in (12, 20)], "spectrum")
    others = np.arange(N) != 9
    for name in (*NUMBERS, "velocity_err", "chi2", "iterations", "flag", "status"):
        one, other = (ds[name].to_numpy() for ds in (whole, without))
        # A parameter at its end is 0 but for what is left of a difference.
        near = {"rtol": 2e-7, "atol": 1e-12, "err_msg": name}
        np.testing.assert_allclose(other[others], one[others], **near)
        np.testing.assert_allclose(alone[name], one[[12, 20]], **near)
    assert np.isnan(without["velocity"].to_numpy()[9])


def test_nothing_is_read_that_is_not_needed(measured: Card) -> None:
    survey = Survey.open(measured.store)
    raw, smooth = steps_of(measured, survey, ["measure"])
    assert raw.needs == ((SPECTRA, "flux"), (SPECTRA, "ivar"))
    assert smooth.needs[-1] == (smooth.input.group, "flux")
    held = Held(measured.store, survey.snapshot, CONFIG, Block(first=GALAXY, last=BAD + 1))
    assert np.isnan(raw(held)["velocity"]).all()
    assert (SPECTRA, "flux") not in held._values


def test_a_survey_without_stars_is_done_and_has_none(tmp_path: Path, client: Client) -> None:
    ingested(tmp_path, 12, **{"class": "GALAXY"})
    asked = card(tmp_path)
    assert "stars/sdss/raw" in do("measure", asked, client)
    found = group(asked, "raw")
    assert (found["status"] == Status.NOT_APPLICABLE).all()
    assert (found["reason_code"] == Reason.NOT_A_STAR).sum() == 10
    assert do("measure", asked, client) == "nothing to do"
