"""Ingest: what is good gets in once and in order, what is bad says why, nothing is half-written."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from distributed import Client

from pipeline import arrivals, ingest, simulate, stages, truth
from pipeline.blocks import Block, BlockError
from pipeline.card import Card
from pipeline.stage import require_ingested
from storage import dust_map
from storage.objects import split
from storage.readers import sdss
from storage.schema import Reason, Split, Status
from storage.store import Survey, exists
from tests.pipeline import surveys
from tests.pipeline.runs import contents
from tests.pipeline.surveys import FILES, GROUP, spectra

SDSS = sdss.build()

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_chunks")]

TRUTH = "truth/sdss"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Path:
    """The folder of a mock survey, ingested; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    card = surveys.mock_card(folder)
    simulate.simulate(card)
    # The truth beside the spectra is no more of them.
    assert ingest.ingest(card, client).computed == surveys.ROWS
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to do anything with."""
    return shutil.copytree(made, tmp_path / "copy")


def state(card: Card) -> tuple[str, dict[str, bytes]]:
    """The version of a store, and its bytes."""
    return Survey.open(card.store).snapshot, contents(card.store, GROUP)


# What is good


def test_a_survey_is_in_the_store_in_the_order_of_its_files(made: Path) -> None:
    card = surveys.mock_card(made)
    ds, files = spectra(card), surveys.paths(Path(card.survey.root))
    assert len(files) == surveys.ROWS
    assert ds["source"].to_numpy().tolist() == [
        str(file.relative_to(card.survey.root)) for file in files
    ]
    (source,) = SDSS.find(card.survey.root, "sdss")
    expected = SDSS.read(source, card.survey.root, "sdss")
    given_by_ingest = {"object_id", "split", "source_size", "source_time"}
    for name in set(expected.variables) - given_by_ingest:
        np.testing.assert_array_equal(ds[name], expected[name], err_msg=str(name))
    assert ds["source_size"].to_numpy().tolist() == [file.stat().st_size for file in files]
    assert ingest.is_done(card)


def test_ingest_twice_does_nothing(copy: Path, client: Client) -> None:
    card = surveys.mock_card(copy)
    before = state(card)
    again = ingest.ingest(card, client)
    assert (again.computed, again.rows) == (0, {Status.DONE: surveys.ROWS})
    assert state(card) == before
    assert stages.stage("ingest", card, stages.Machine(card)) == "nothing to do"


def test_the_store_is_lazy_with_units_on_every_variable_and_says_where_it_came_from(
    made: Path,
) -> None:
    card = surveys.mock_card(made)
    survey = Survey.open(card.store)
    assert survey.groups() == [GROUP, TRUTH]
    for group in survey.groups():
        ds = survey.dataset(group, dask=True)
        assert ds["flux"].chunks is not None
        assert [name for name, v in ds.variables.items() if "units" not in v.attrs] == []
        assert {"code_version", "packages", "platform"} <= survey.attrs(group).keys()
    written = [v.metadata for v in survey.history() if ": rows" in v.message]
    assert {(about["group"], about["card"]) for about in written} == {
        (group, card.digest) for group in (GROUP, TRUTH)
    }


def test_an_object_on_two_dates_is_two_spectra_with_one_id_and_one_side(made: Path) -> None:
    ds = spectra(surveys.mock_card(made))
    assert (ds["status"] == Status.DONE).all()
    assert len(np.unique(ds["object_id"])) == len(np.unique(ds["ra"])) == FILES
    for ra in np.unique(ds["ra"]):
        one = ds.isel(spectrum=np.flatnonzero(ds["ra"] == ra))
        assert len(np.unique(one["object_id"])) == len(np.unique(one["split"])) == 1
        assert len(np.unique(one["mjd"])) == one.sizes["spectrum"]


def test_the_sides_are_those_that_the_card_says(tmp_path: Path, client: Client) -> None:
    surveys.write(tmp_path / "files")
    shares = {"train": 0.5, "val": 0.0, "calib": 0.0, "test": 0.5}
    card = surveys.card(tmp_path, split={"salt": "pepper", "shares": shares})
    ingest.ingest(card, client)
    ds = spectra(card)
    ids = ds["object_id"].to_numpy()
    assert (ids > 0).all()
    assert set(np.unique(ds["split"])) == {Split.TRAIN, Split.TEST}
    np.testing.assert_array_equal(ds["split"], split(ids, "pepper", card.split.shares))


def test_truth_follows_the_observation_whatever_the_order_of_the_files(made: Path) -> None:
    card = surveys.mock_card(made)
    ds, known = spectra(card), Survey.open(card.store).dataset(TRUTH).load()
    kept = xr.open_zarr(Path(card.survey.root) / truth.TRUTH, consolidated=False)
    assert kept["observation"].to_numpy().tolist() != ds["observation"].to_numpy().tolist()
    covered = ds["ivar"].to_numpy() > 0
    np.testing.assert_array_equal(known["ra"], ds["ra"])
    np.testing.assert_array_equal(
        known["flux"].to_numpy()[covered], ds["model"].to_numpy()[covered]
    )
    assert (known["status"] == Status.DONE).all()


def test_a_spectrum_that_the_mock_does_not_know_has_no_truth(
    tmp_path: Path, client: Client
) -> None:
    card = surveys.mock_card(tmp_path)
    simulate.simulate(card)
    stranger = surveys.Sparse().truth(1, surveys.GRID, 9, "survey-7")
    seen = surveys.Sparse().observe(stranger, surveys.GRID, 9, "survey-7-first")
    SDSS.write(seen, card.survey.root, "sdss")
    ingest.ingest(card, client)
    known = Survey.open(card.store).dataset(TRUTH).load()
    lacking = np.flatnonzero(known["status"] == Status.NOT_APPLICABLE)
    assert spectra(card)["observation"].to_numpy()[lacking].tolist() == ["2007-52007-0001"]
    assert (known["reason_code"][lacking] == Reason.UPSTREAM_NOT_APPLICABLE).all()
    assert not known["flux"][lacking].any()
    assert np.isnan(known["z"][lacking]).all()


def test_a_folder_may_be_put_away_once_it_is_in_the_store(tmp_path: Path, client: Client) -> None:
    card, _ = surveys.card(tmp_path), surveys.write(tmp_path / "files", 2)
    ingest.ingest(card, client)
    Path(card.survey.root).rename(tmp_path / "tape")
    assert ingest.is_done(card)
    misspelt = surveys.card(tmp_path, survey={"root": str(tmp_path / "flies")})
    assert not ingest.is_done(misspelt)


def test_another_split_is_refused(copy: Path, client: Client) -> None:
    card = surveys.mock_card(copy)
    before = state(card)
    other = surveys.card(copy, split={"salt": "another"})
    assert not ingest.is_done(other)
    with pytest.raises(ValueError, match=r"\[split\] says otherwise; put it back, or give"):
        ingest.ingest(other, client)
    assert state(card) == before


# What is broken off


@dataclass(frozen=True)
class Dying(ingest.Read):
    """Dies behind row 16, when the rows before it are committed."""

    def __call__(self, block: Block) -> xr.Dataset:
        if block.first < 16:
            return super().__call__(block)
        store = str(Path(self.root).parent / "run" / "survey.icechunk")
        for _ in range(100):
            if (Survey.open(store).dataset(GROUP)["status"][:16] == Status.DONE).all():
                raise InterruptedError("killed")
            time.sleep(0.1)
        raise TimeoutError("rows 0:16 are not committed")


def die_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "Read", Dying)


def die_in(module: object, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def arrange(monkeypatch: pytest.MonkeyPatch) -> None:
        def die(*_: object) -> None:
            raise InterruptedError("killed")

        monkeypatch.setattr(module, name, die)

    return arrange


@pytest.mark.parametrize(
    ("arrange", "step", "left"),
    [
        (die_of_reading, 65_536, {Status.DONE, Status.PENDING}),
        (die_of_reading, 16, {Status.DONE, Status.PENDING}),
        (die_in(ingest, "settle"), 16, {Status.DONE}),
        (die_in(truth, "ingest"), 65_536, {Status.DONE}),
    ],
    ids=["reading", "reading the second step", "before objects", "before the truth"],
)
def test_a_broken_off_ingest_is_finished_by_the_next_one(
    made: Path,
    tmp_path: Path,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[pytest.MonkeyPatch], None],
    step: int,
    left: set[Status],
) -> None:
    card = surveys.mock_card(tmp_path, commit_blocks=1)
    simulate.simulate(card)
    monkeypatch.setattr(arrivals, "STEP_ROWS", step)
    with monkeypatch.context() as patch:
        arrange(patch)
        with pytest.raises((BlockError, InterruptedError), match="killed"):
            ingest.ingest(card, client)
    assert set(spectra(card)["status"].to_numpy().tolist()) == left
    assert not ingest.is_done(card)
    ingest.ingest(card, client)
    assert ingest.is_done(card)
    for group in (GROUP, TRUTH):
        expected = contents(surveys.mock_card(made).store, group)
        assert contents(card.store, group) == expected


def test_nothing_is_built_on_a_broken_off_ingest(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, _ = surveys.card(tmp_path), surveys.write(tmp_path / "files", 2)
    die_in(ingest, "settle")(monkeypatch)
    with pytest.raises((BlockError, InterruptedError), match="killed"):
        ingest.ingest(card, client)
    with pytest.raises(ValueError, match="not ingested whole; `specmill ingest CARD` goes on"):
        require_ingested(Survey.open(card.store), GROUP)


def test_half_of_a_mock_survey_is_refused(tmp_path: Path, client: Client) -> None:
    card = surveys.mock_card(tmp_path)
    simulate.simulate(card)
    mark = Path(card.survey.root) / simulate.MARK
    mark.write_text(mark.read_text().replace("true", "false"))
    with pytest.raises(ValueError, match="broken off here; `specmill simulate CARD` finishes it"):
        ingest.ingest(card, client)
    assert not exists(card.store)


def test_reddening_is_from_the_map_where_the_file_gives_none(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = surveys.write(tmp_path / "files", 3)
    surveys.put(2, "EXTINCTION", 0)(files[1])
    flat = fits.PrimaryHDU(np.full((64, 64), 0.25, "f4"))
    flat.header["LAM_SCAL"], flat.header["CRPIX1"], flat.header["CRPIX2"] = 32.0, 32.5, 32.5
    for name, sign in zip(dust_map.NAMES, (1, -1), strict=True):
        flat.header["LAM_NSGP"] = sign
        flat.writeto(tmp_path / name)
    survey = {"root": str(tmp_path / "files"), "dust_map": str(tmp_path)}
    card = surveys.card(tmp_path, survey=survey)
    ingest.ingest(card, client)
    ds = spectra(card)
    assert ds["ebv_known"].to_numpy().tolist() == [1, 2, 1]
    np.testing.assert_allclose(ds["ebv"], [0.05, 0.25, 0.05], rtol=1e-6)


def test_a_store_keeps_the_bits_that_it_was_begun_with(tmp_path: Path, client: Client) -> None:
    surveys.write(tmp_path / "files", 3)
    survey = {"root": str(tmp_path / "files")}
    card = surveys.card(tmp_path, survey={**survey, "precision": "noise"})
    ingest.ingest(card, client)
    flux = spectra(card)["flux"].to_numpy()
    np.testing.assert_array_equal(flux, np.rint(flux * 8) / 8)
    with pytest.raises(ValueError, match=r"is held in precision 'noise', the card says 'lossless'"):
        ingest.ingest(surveys.card(tmp_path, survey=survey), client)
