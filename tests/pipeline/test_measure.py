"""Measure: indices with errors of everything that a survey holds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client

from pipeline import index, stage
from pipeline.block import Block
from pipeline.blocks import Tally
from pipeline.card import Card
from pipeline.index import Flag
from pipeline.index_rules import Rules
from pipeline.inputs import inputs
from pipeline.measure import ErrorKind, Measure, measure_indices
from pipeline.passes import Pass, run
from pipeline.passes import is_done as _is_done
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, FRAME, GRID
from training import checkpoint

pytestmark = pytest.mark.cluster

N = 600
GALAXIES = {"where": "class == 'GALAXY'"}
NAMES = ("Dn4000", "HdeltaF", "Mgb")


def denoise(card: Card, client: Client) -> dict[str, Tally]:
    return run(card, client, ["denoise"])


def measure(card: Card, client: Client) -> dict[str, Tally]:
    return run(card, client, ["measure"])


def is_done(card: Card) -> bool:
    return _is_done(card, ["measure"])


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Card:
    """A survey that is denoised by two models and measured."""
    folder = tmp_path_factory.mktemp("measure")
    save(folder, "factors", factors(ingested(folder, N)))
    save(folder, "filter")
    routes = {"where": "z < 0.11", "model": "factors"}, {**GALAXIES, "model": "filter"}
    found = card_of(folder, *routes)
    denoise(found, client)
    measure(found, client)
    return found


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    stage.reading.cache_clear()


def spectra_of(card: Card) -> xr.Dataset:
    return Survey.open(card.store).dataset(SPECTRA).load()


def measured(card: Card, name: str) -> xr.Dataset:
    """An index group, by the beginning of its name."""
    survey = Survey.open(card.store)
    (group,) = (g for g in survey.groups() if g.startswith(f"indices/{CONFIG}/{name}"))
    return survey.dataset(group).load()


def product(card: Card, alias: str) -> xr.Dataset:
    survey = Survey.open(card.store)
    (group,) = (g for g in survey.groups() if g.startswith(f"denoised/{CONFIG}/{alias}"))
    return survey.dataset(group).load()


def job(card: Card, alias: str) -> Callable[[int, int], xr.Dataset]:
    """What a worker does with rows of a product."""
    survey = Survey.open(card.store)
    (given,) = (one for one in inputs(card, survey) if one.alias == alias)
    step = Measure(
        config=CONFIG,
        input=given,
        rules=Rules.of(card.measure),
        draws=card.measure.draws,
        seed=card.run.seed,
    )
    work = Pass(store=card.store, snapshot=survey.snapshot, config=CONFIG, steps=(step,))

    def rows(first: int, last: int) -> xr.Dataset:
        block = Block(first=first, last=last, groups=frozenset([step.group]))
        return work(block, work.read(block))[step.group]

    return rows


def done_of(ds: xr.Dataset) -> np.ndarray:
    return np.asarray((ds["status"] == Status.DONE).to_numpy())


def test_every_input_of_the_card_is_measured_with_units_and_provenance(card: Card) -> None:
    survey = Survey.open(card.store)
    groups = [group for group in survey.groups() if group.startswith("indices/")]
    labels = sorted(group.rpartition("/")[2].partition("-")[0] for group in groups)
    assert labels == ["factors", "filter", "model@fs", "raw", "raw@fs", "truth@fs"]
    for group in groups:
        ds, about = survey.dataset(group), survey.attrs(group)
        assert [name for name, v in ds.variables.items() if "units" not in v.attrs] == []
        assert about["units"] == {"Dn4000": "1", "HdeltaF": "Angstrom", "Mgb": "Angstrom"}
        assert {"input", "input_snapshot", "code_version", "card_digest"} <= set(about)
    assert is_done(card)


def test_raw_on_the_frame_is_the_framed_spectrum_measured(card: Card) -> None:
    ds, found = spectra_of(card), measured(card, "raw@")
    batch = FRAME.on(GRID).to(*(ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")))
    expected = index.measure(FRAME.grid.wavelength, batch.x, batch.weight, NAMES)
    done = done_of(found)
    assert done.sum() == N - 2
    np.testing.assert_allclose(found["value"][done], expected.value[done], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["error"][done], expected.error[done], rtol=1e-4)
    finite = np.isfinite(found["error"].to_numpy())
    kinds = np.where(finite, ErrorKind.FORMAL, ErrorKind.NONE)
    np.testing.assert_array_equal(found["error_kind"], kinds)


def test_raw_is_the_native_spectrum_at_its_redshift(card: Card) -> None:
    ds = spectra_of(card)
    found = Survey.open(card.store).dataset(f"indices/{CONFIG}/raw").load()
    given = (ds[name].to_numpy() for name in ("flux", "ivar"))
    expected = measure_indices(GRID.wavelength, *given, z=ds["z"].to_numpy())
    done = done_of(found)
    np.testing.assert_allclose(found["value"][done], expected["value"][done], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["error"][done], expected["error"][done], rtol=1e-4)


@pytest.mark.parametrize("name", ["truth@", "model@"])
def test_what_has_no_noise_has_no_error(card: Card, name: str) -> None:
    found = measured(card, name)
    assert np.isfinite(found["value"].to_numpy()[done_of(found)]).all()
    assert np.isnan(found["error"]).all()
    assert (found["error_kind"] == ErrorKind.NONE).all()


def test_rows_that_are_bad_or_sky_are_not_measured(card: Card) -> None:
    for name in ("raw@", "truth@", "factors"):
        found = measured(card, name).isel(spectrum=[-3, -2])
        assert (found["status"] == Status.NOT_APPLICABLE).all(), name
        codes = [Reason.UPSTREAM_QUARANTINED, Reason.NOT_SCIENCE]
        assert found["reason_code"].to_numpy().tolist() == codes
        assert np.isnan(found["value"]).all()


def test_rows_that_a_product_lacks_are_not_measured(card: Card) -> None:
    found, made = measured(card, "factors"), product(card, "factors")
    np.testing.assert_array_equal(done_of(found), done_of(made))
    missing = ~done_of(made)
    missing[-3:] = False
    assert missing.any()
    assert (found["reason_code"][missing] == Reason.UPSTREAM_NOT_APPLICABLE).all()


def test_a_product_is_measured_where_it_is(card: Card) -> None:
    found, made = measured(card, "factors"), product(card, "factors")
    expected = measure_indices(FRAME.grid.wavelength, made["flux"].to_numpy(), None)
    done = done_of(found)
    np.testing.assert_allclose(found["value"][done], expected["value"][done], rtol=1e-6)


def test_a_model_without_a_posterior_has_no_error(card: Card) -> None:
    found = measured(card, "filter")
    done = done_of(found)
    assert done.any()
    assert np.isnan(found["error"]).all()
    assert (found["error_kind"] == ErrorKind.NONE).all()
    assert (found["flag"].to_numpy()[done] & Flag.NO_ERROR).all()


def test_the_error_on_a_denoised_spectrum_is_the_scatter_of_its_posterior(card: Card) -> None:
    found, made = measured(card, "factors"), product(card, "factors")
    rows = np.flatnonzero(done_of(made))[:60]
    assert (found["error_kind"].to_numpy()[rows] == ErrorKind.DRAWS).all()
    assert not (found["flag"].to_numpy()[rows] & Flag.NO_ERROR).any()
    model = checkpoint.load(next(Path(card.checkpoints).glob("factors-*"))).model
    random, expected = np.random.default_rng(5), []
    for row in rows:
        # The square root of the covariance, another than that of Cholesky.
        widths, axes = np.linalg.eigh(made["latent_cov"].to_numpy()[row].astype("f8"))
        moved = random.normal(size=(400, 4)) * np.sqrt(widths) @ axes.T
        latent = torch.from_numpy(made["latent"].to_numpy()[row] + moved).float()
        flux = model.decode(latent)
        values = index.measure(FRAME.grid.wavelength, flux, None, NAMES).value
        expected.append(values.std(0).numpy())
    ratio = found["error"].to_numpy()[rows] / np.array(expected)
    # A standard deviation of 16 draws is known to 18 %.
    np.testing.assert_allclose(np.median(ratio, axis=0), 1, atol=0.1)
    assert np.mean(np.abs(ratio - 1) < 0.4) > 0.93


def test_draws_do_not_depend_on_who_measures_which_block(card: Card) -> None:
    work, whole = job(card, "factors"), measured(card, "factors")
    parts = [work(first, last) for first, last in ((0, 512), (512, N))]
    again = [work(first, last) for first, last in ((0, 512), (512, N))]
    at_once = work(0, N)
    for name in ("value", "error", "error_kind", "flag"):
        joined = np.concatenate([part[name].to_numpy() for part in parts])
        assert joined.tobytes() == np.concatenate([p[name].to_numpy() for p in again]).tobytes()
        assert joined.tobytes() == at_once[name].to_numpy().tobytes(), name
        # Workers have another number of threads, which may round differently.
        np.testing.assert_allclose(joined, whole[name], rtol=1e-3)


def test_other_seeds_and_numbers_of_draws_are_measured_anew(card: Card) -> None:
    for change in (
        {"run": {"dir": card.run.dir, "seed": 2}},
        {"measure": {"draws": 32}},
        {"measure": {"indices": ("Mgb",)}},
    ):
        assert not is_done(changed(card, **change))
    assert is_done(changed(card, report={"examples": 1}))


def changed(card: Card, **tables: Any) -> Card:
    return Card.model_validate({**card.model_dump(mode="json"), **tables})


def test_a_measurement_is_redone_when_its_product_was_remade(
    tmp_path: Path, client: Client
) -> None:
    ingested(tmp_path, 80)
    save(tmp_path, "filter")
    first = card_of(tmp_path, {**GALAXIES, "model": "filter"})
    denoise(first, client)
    before = measure(first, client)
    assert is_done(first)
    assert [tally.computed for tally in measure(first, client).values()] == [0] * len(before)
    other = card_of(tmp_path, {"where": "z < 0.08", "model": "filter"})
    denoise(other, client)
    assert not is_done(other)
    again = {name.rpartition("/")[2]: tally for name, tally in measure(other, client).items()}
    redone = [name.partition("-")[0] for name, tally in again.items() if tally.computed]
    assert redone == ["filter"]
    assert is_done(other)
    done = done_of(measured(other, "filter"))
    np.testing.assert_array_equal(done, done_of(product(other, "filter")))


def test_a_product_that_is_not_finished_is_refused(tmp_path: Path, client: Client) -> None:
    ingested(tmp_path, 80)
    save(tmp_path, "filter")
    card = card_of(tmp_path, {**GALAXIES, "model": "filter"})
    with pytest.raises(ValueError, match=r"no denoised/sdss/filter-.*; `specmill denoise` makes"):
        measure(card, client)
    (group,) = denoise(card, client)
    with writing(card.store, "test") as writer:
        writer.write_columns(group, 0, {"status": np.zeros(5, "u1")})
        writer.commit("five rows pending", {"group": group})
    with pytest.raises(ValueError, match="is not finished; `specmill denoise` goes on"):
        measure(card, client)


def test_an_input_that_does_not_exist_is_named(tmp_path: Path, client: Client) -> None:
    ingested(tmp_path, 80)
    card = card_of(tmp_path, measure={"inputs": ["raw@sf"]})
    with pytest.raises(ValueError, match=r"measure.inputs: no 'raw@sf' \(there: raw, raw@frame"):
        measure(card, client)
    wrong = card_of(tmp_path, measure={"inputs": ["raw"], "indices": ["Mgc"]})
    with pytest.raises(ValueError, match=r"no index 'Mgc'.*did you mean 'Mgb'"):
        measure(wrong, client)
    assert not [g for g in Survey.open(wrong.store).groups() if g.startswith("indices/")]
