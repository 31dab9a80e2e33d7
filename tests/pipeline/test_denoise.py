"""Denoise: products say what the model says, for the rows that it may touch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client

from pipeline import product as products
from pipeline import stage
from pipeline.blocks import Tally
from pipeline.card import Card
from pipeline.passes import is_done as _is_done
from pipeline.passes import run
from pipeline.product import ABOVE_CEILING, EXTRAPOLATED
from storage.schema import FLUX_UNIT, Reason, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import FOOTPRINT, POOR, SPECTRA, card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, FRAME, GRID
from training import checkpoint

pytestmark = pytest.mark.cluster

N = 600
GALAXIES = {"where": "class == 'GALAXY'"}


def denoise(card: Card, client: Client) -> dict[str, Tally]:
    return run(card, client, ["denoise"])


def is_done(card: Card) -> bool:
    return _is_done(card, ["denoise"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey, and two models that may touch it."""
    found = tmp_path_factory.mktemp("denoise")
    save(found, "factors", factors(ingested(found, N)))
    save(found, "filter")
    return found


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Checkpoints are kept by their path, which a test may have changed."""
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


@pytest.fixture(scope="module")
def card(folder: Path) -> Card:
    return card_of(folder, {**GALAXIES, "model": "factors"})


@pytest.fixture(scope="module")
def product(card: Card, client: Client) -> xr.Dataset:
    (group,) = denoise(card, client)
    return Survey.open(card.store).dataset(group).load()


def spectra_of(card: Card) -> xr.Dataset:
    return Survey.open(card.store).dataset(SPECTRA).load()


def remade(card: Card, client: Client) -> xr.Dataset:
    (group,) = denoise(card, client)
    return Survey.open(card.store).dataset(group).load()


def test_a_product_has_the_shape_of_its_frame_and_units(product: xr.Dataset) -> None:
    assert dict(product.sizes) == {
        "spectrum": N, "wavelength": FRAME.grid.size, "latent": 4, "latent_2": 4
    }  # fmt: skip
    np.testing.assert_allclose(product["wavelength"], FRAME.grid.wavelength)
    assert [name for name, v in product.data_vars.items() if "units" not in v.attrs] == []
    assert product["flux"].attrs["units"] == product["sigma"].attrs["units"] == FLUX_UNIT
    assert product["wavelength"].attrs["units"] == "Angstrom"
    assert product["flux"].dtype == product["sigma"].dtype == np.float32


def test_it_holds_what_the_checkpoint_says_of_the_same_rows(
    card: Card, product: xr.Dataset
) -> None:
    ds = spectra_of(card)
    model = checkpoint.load(next(Path(card.checkpoints).glob("factors-*")))
    given = (ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv"))
    expected = model.denoise(GRID.wavelength, *given)
    done = (product["status"] == Status.DONE).to_numpy()
    assert 300 < done.sum() < N
    for name in ("flux", "sigma", "latent", "scale"):
        np.testing.assert_allclose(
            product[name][done], expected[name][done], rtol=2e-5, atol=1e-5, err_msg=name
        )
        # A pixel that is not there is 0, a number that is not there is not a number.
        assert (product[name][~done].fillna(0) == 0).all()
    np.testing.assert_array_equal(
        product["latent_cov"][done],
        product["latent_cov"].transpose(..., "latent_2", "latent")[done],
    )


def test_the_door_warns_of_rows_outside_the_footprint(card: Card, product: xr.Dataset) -> None:
    ds = spectra_of(card)
    model = checkpoint.load(next(Path(card.checkpoints).glob("factors-*")))
    given = (ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv"))
    flags = model.denoise(GRID.wavelength, *given)["flags"].to_numpy()
    far = ds["z"].to_numpy() > FOOTPRINT.z[1]
    np.testing.assert_array_equal(flags & checkpoint.Flag.REDSHIFT > 0, far)


def test_rows_outside_the_footprint_are_left_out_with_the_reason(
    card: Card, product: xr.Dataset
) -> None:
    ds = spectra_of(card)
    z, snr = ds["z"].to_numpy(), ds["snr_g"].to_numpy()
    inside = (z <= FOOTPRINT.z[1]) & (snr >= FOOTPRINT.snr_g[0])
    inside[-3:] = False
    np.testing.assert_array_equal(product["status"] == Status.DONE, inside)
    outside = ~inside
    outside[-3:] = False
    assert (product["status"][outside] == Status.NOT_APPLICABLE).all()
    assert (product["reason_code"][outside] == Reason.OUTSIDE_FOOTPRINT).all()
    far = np.flatnonzero(outside & (z > FOOTPRINT.z[1]) & (snr > 3))[0]
    assert product["reason"].to_numpy()[far] == f"z {z[far]:.4g} outside 0.02-0.13"
    assert (product["reason"][inside] == "").all()
    assert product["reason_code"].to_numpy()[-3:].tolist() == [
        Reason.UPSTREAM_QUARANTINED,
        Reason.NOT_SCIENCE,
        Reason.ROUTED_NOWHERE,
    ]


def test_rows_above_the_ceiling_are_done_and_flagged(card: Card, product: xr.Dataset) -> None:
    done = (product["status"] == Status.DONE).to_numpy()
    above = done & (spectra_of(card)["snr_g"].to_numpy() > 20)
    assert above.any()
    np.testing.assert_array_equal(product["flag"], np.where(above, ABOVE_CEILING, 0))


def test_a_second_time_there_is_nothing_to_do(
    card: Card, product: xr.Dataset, client: Client
) -> None:
    before = Survey.open(card.store).snapshot
    assert is_done(card)
    (tally,) = denoise(card, client).values()
    assert tally.computed == 0
    assert Survey.open(card.store).snapshot == before


def test_a_model_without_sigma_or_latents_has_none_in_its_product(
    folder: Path, client: Client
) -> None:
    found = remade(card_of(folder, {**GALAXIES, "model": "filter"}), client)
    assert {"sigma", "latent", "latent_cov"}.isdisjoint(found)
    assert {"flux", "scale", "flag", "route", "reason", "status"} <= set(found)


def test_two_models_give_two_products_and_every_row_belongs_to_one(
    tmp_path: Path, client: Client
) -> None:
    save(tmp_path, "factors", factors(ingested(tmp_path, 80)))
    save(tmp_path, "filter")
    routes = {"where": "z < 0.08", "model": "filter"}, {**GALAXIES, "model": "factors"}
    card = card_of(tmp_path, *routes)
    tallies, survey = denoise(card, client), Survey.open(card.store)
    names = [group.rpartition("/")[2].rpartition("-")[0] for group in tallies]
    assert names == ["filter", "factors"]
    low, high = (survey.dataset(group).load() for group in tallies)
    near = spectra_of(card)["z"].to_numpy() < 0.08
    np.testing.assert_array_equal(low["route"], high["route"])
    np.testing.assert_array_equal(low["route"][near], 0)
    for found, mine in ((low, near), (high, ~near)):
        done = (found["status"] == Status.DONE).to_numpy()
        assert done.any()
        assert not (done & ~mine).any()
        others = found["reason_code"].to_numpy()[:-3][~mine[:-3]]
        assert (others == Reason.ROUTED_ELSEWHERE).all()


def test_changed_routes_make_the_product_anew(tmp_path: Path, client: Client) -> None:
    save(tmp_path, "filter")
    ingested(tmp_path, 80)
    card = card_of(tmp_path, {**GALAXIES, "model": "filter"})
    before = remade(card, client)
    other = card_of(tmp_path, {"where": "z < 0.08", "model": "filter"})
    assert not is_done(other)
    after = remade(other, client)
    assert is_done(other)
    assert not is_done(card)
    near = spectra_of(card)["z"].to_numpy() < 0.08
    was, now = (ds["status"].to_numpy() == Status.DONE for ds in (before, after))
    np.testing.assert_array_equal(now, was & near)
    assert (after["flux"].to_numpy()[was & ~near] == 0).all()


def test_rows_outside_are_done_and_flagged_where_the_card_says_so(
    tmp_path: Path, client: Client
) -> None:
    save(tmp_path, "filter")
    ingested(tmp_path, 80)
    card = card_of(tmp_path, {"model": "filter"}, denoise={"outside": "flag"})
    found, ds = remade(card, client), spectra_of(card)
    far = (ds["z"] > FOOTPRINT.z[1]).to_numpy()
    far[-3:] = False
    assert (found["status"][far] == Status.DONE).all()
    assert (found["flag"].to_numpy()[far] & EXTRAPOLATED).all()
    assert all(text.startswith("z ") for text in found["reason"].to_numpy()[far])
    assert (found["flux"][far] > 0).any("wavelength").all()
    star = found.isel(spectrum=-1)
    assert "class STAR not of GALAXY" in str(star["reason"].item())
    assert star["status"] == Status.DONE


def test_a_spectrum_without_flux_in_the_window_is_left_out_even_then(
    tmp_path: Path, client: Client
) -> None:
    save(tmp_path, "filter")
    path = ingested(tmp_path, 80)
    blind = spectra_of(card_of(tmp_path))
    rest = GRID.wavelength / (1 + float(blind["z"][0]))
    ivar = blind["ivar"].to_numpy()
    ivar[0, (rest > 5900) & (rest < 6600)] = 0
    with writing(path, "test") as writer:
        fork = writer.fork()
        fork.write_block(SPECTRA, 0, {"ivar": ivar})
        writer.absorb([fork])
        writer.commit("blind", {"group": SPECTRA})
    card = card_of(tmp_path, {"model": "filter"}, denoise={"outside": "flag"})
    row = remade(card, client).isel(spectrum=0)
    assert row["status"] == Status.NOT_APPLICABLE
    assert row["reason_code"] == Reason.OUTSIDE_FOOTPRINT
    assert row["reason"] != ""


def test_a_product_says_whose_it_is_and_that_its_model_has_not_passed(
    tmp_path: Path, client: Client
) -> None:
    path = save(tmp_path, "filter", verdict=POOR)
    ingested(tmp_path, 80)
    card = card_of(tmp_path, {"model": "filter"}, denoise={"unproven": True})
    (group,) = denoise(card, client)
    about = Survey.open(card.store).attrs(group)
    assert group == f"denoised/{CONFIG}/{path.name}"
    assert about["verdict"] == f"failed: {POOR.reason}"
    assert about["checkpoint_digest"] == checkpoint.digest(path)
    assert (about["alias"], about["frame"]) == ("filter", FRAME.label)
    assert about["card_digest"] == card.digest


def test_a_run_may_be_moved(tmp_path: Path, client: Client) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    save(here, "filter")
    ingested(here, 80)
    denoise(card_of(here, {"model": "filter"}), client)
    here.rename(there)
    assert is_done(card_of(there, {"model": "filter"}))


def test_a_damaged_checkpoint_is_refused_before_anything_is_written(
    tmp_path: Path, client: Client
) -> None:
    path = save(tmp_path, "factors", factors(ingested(tmp_path, 80)))
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)
    card = card_of(tmp_path, {"model": "factors"})
    before = Survey.open(card.store).snapshot
    with pytest.raises(ValueError, match=r"content was changed or cut short: copy or train it"):
        denoise(card, client)
    assert Survey.open(card.store).snapshot == before


def test_a_survey_that_is_not_ingested_whole_is_refused(tmp_path: Path, client: Client) -> None:
    path = ingested(tmp_path, 80)
    save(tmp_path, "filter")
    with writing(path, "test") as writer:
        writer.set_attrs(SPECTRA, {"complete": False})
        writer.commit("broken off")
    with pytest.raises(ValueError, match="not ingested whole; `specmill ingest CARD` goes on"):
        denoise(card_of(tmp_path, {"model": "filter"}), client)


def test_draws_need_a_decoder_that_gives_the_flux_back(card: Card, product: xr.Dataset) -> None:
    model = checkpoint.load(next(Path(card.checkpoints).glob("factors-*")))
    done = (product["status"] == Status.DONE).to_numpy()
    latent = torch.from_numpy(product["latent"].to_numpy()[done])
    decoded = model.model.decode(latent).numpy() * product["scale"].to_numpy()[done, None]
    np.testing.assert_allclose(decoded, product["flux"].to_numpy()[done], rtol=1e-4, atol=1e-4)
