"""Simulate: real files with their truth, in a folder of its own, whatever breaks off."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from pipeline import simulate, stages
from pipeline.card import Card
from pipeline.truth import TRUTH
from storage.objects import RADIUS_ARCSEC
from storage.readers import sdss
from storage.schema import Status
from tests.pipeline import surveys
from tests.pipeline.runs import specmill
from tests.pipeline.surveys import FILES, REPEATS, ROWS

SDSS = sdss.build()


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty objects are four steps, the repeats one more."""
    monkeypatch.setattr(simulate, "STEP_ROWS", 8)


def root_of(card: Card) -> Path:
    return Path(card.survey.root)


def everything(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


def read(card: Card) -> xr.Dataset:
    parts = [
        SDSS.read(source, card.survey.root, "sdss")
        for source in SDSS.find(card.survey.root, "sdss")
    ]
    return xr.concat(parts, "spectrum", data_vars="minimal", join="exact")


def kept(card: Card) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(root_of(card) / TRUTH, consolidated=False)
    return ds.load()


def test_every_object_has_a_file_and_some_a_second_one_on_another_date(tmp_path: Path) -> None:
    card = surveys.mock_card(tmp_path)
    written = simulate.simulate(card)
    ds = read(card)
    place = np.column_stack([ds["ra"], ds["dec"]])
    again = np.abs(place[:, None] - place[None]).max(axis=2) < RADIUS_ARCSEC / 3600
    assert written == len(surveys.paths(root_of(card))) == ROWS
    assert (ds["status"] == Status.DONE).all()
    assert sorted(again.sum(axis=1).tolist()) == [1] * (FILES - REPEATS) + [2] * (2 * REPEATS)
    for row in np.flatnonzero(again.sum(axis=1) == 2):
        assert len(np.unique(ds["mjd"][np.flatnonzero(again[row])])) == 2


def test_astropy_opens_the_files(tmp_path: Path) -> None:
    card = surveys.mock_card(tmp_path)
    simulate.simulate(card)
    for path in surveys.paths(root_of(card)):
        with fits.open(path, memmap=False) as hdus:
            hdus.verify("exception")
            assert [hdu.name for hdu in hdus[1:3]] == ["COADD", "SPECOBJ"]
            assert {"flux", "loglam", "ivar", "and_mask"} <= set(hdus["COADD"].columns.names)


def test_the_truth_has_a_row_for_every_file(tmp_path: Path) -> None:
    card = surveys.mock_card(tmp_path)
    simulate.simulate(card)
    truth, ds = kept(card), read(card)
    row_of = {str(name): row for row, name in enumerate(truth["observation"].to_numpy())}
    assert len(row_of) == truth.sizes["spectrum"] == ROWS
    rows = [row_of[str(name)] for name in ds["observation"].to_numpy()]
    np.testing.assert_array_equal(truth["ra"][rows], ds["ra"])
    assert all("units" in variable.attrs for variable in truth.variables.values())


def test_simulate_twice_does_nothing(tmp_path: Path) -> None:
    card = surveys.mock_card(tmp_path)
    assert not simulate.is_done(card)
    simulate.simulate(card)
    before = {file: file.stat().st_mtime_ns for file in root_of(card).rglob("*")}
    assert stages.stage("simulate", card, stages.Machine(card)) == "nothing to do"
    assert {file: file.stat().st_mtime_ns for file in root_of(card).rglob("*")} == before


def die(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    """In the third step, when two are written."""
    observe = surveys.Sparse.observe

    def dying(*given: object) -> xr.Dataset:
        if "-2-" in str(given[-1]):
            raise InterruptedError("killed")
        return observe(*given)  # type: ignore[arg-type]  # passed on as it came

    with monkeypatch.context() as patch:
        patch.setattr(surveys.Sparse, "observe", dying)
        with pytest.raises(InterruptedError, match="killed"):
            simulate.simulate(card)
    assert len(surveys.paths(root_of(card))) == 16
    assert kept(card).sizes["spectrum"] == 16


def unmark(card: Card) -> None:
    mark = root_of(card) / simulate.MARK
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "complete": False}))


def lose_half_of_the_truth(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    simulate.simulate(card)
    unmark(card)
    for name in ("zarr.json", "flux/zarr.json"):
        file = root_of(card) / TRUTH / name
        file.write_bytes(file.read_bytes()[:20])
    shutil.rmtree(root_of(card) / TRUTH / "ra")


def lose_some_files(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    simulate.simulate(card)
    unmark(card)
    for file in surveys.paths(root_of(card))[::2]:
        surveys.truncate(file)


@pytest.mark.parametrize("kill", [die, lose_half_of_the_truth, lose_some_files])
def test_a_broken_off_simulate_is_finished_by_the_next_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill: Callable[[pytest.MonkeyPatch, Card], None],
) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, broken = (surveys.mock_card(tmp_path / name) for name in ("whole", "broken"))
    simulate.simulate(whole)
    kill(monkeypatch, broken)
    assert not simulate.is_done(broken)
    simulate.simulate(broken)
    assert simulate.is_done(broken)
    assert everything(root_of(broken)) == everything(root_of(whole))


def test_a_kill_at_the_first_mark_leaves_a_folder_that_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = surveys.mock_card(tmp_path)

    def dying(*_: object) -> None:
        raise InterruptedError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(InterruptedError):
            simulate.simulate(card)
    assert root_of(card).is_dir()
    assert simulate.simulate(card) == ROWS


@pytest.mark.parametrize("complete", [True, False])
def test_a_folder_of_another_mock_survey_is_refused(tmp_path: Path, complete: bool) -> None:
    card = surveys.mock_card(tmp_path)
    simulate.simulate(card)
    if not complete:
        unmark(card)
    before = everything(root_of(card))
    for other in (surveys.mock_card(tmp_path, seed=2), surveys.mock_card(tmp_path, n=FILES - 1)):
        assert not simulate.is_done(other)
        with pytest.raises(ValueError, match=r"another mock survey .*remove the folder, or give"):
            simulate.simulate(other)
    assert everything(root_of(card)) == before


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    card = surveys.mock_card(tmp_path)
    root_of(card).mkdir()
    (root_of(card) / "thesis.tex").write_text("years of work")
    before = everything(root_of(card))
    with pytest.raises(ValueError, match=r"not made by simulate; give survey\.root a new folder"):
        simulate.simulate(card)
    assert everything(root_of(card)) == before


def test_the_command_exits_2_at_a_folder_of_somebody_else(tmp_path: Path) -> None:
    surveys.write(tmp_path / "files", 1)
    before = everything(tmp_path / "files")
    (tmp_path / "card.toml").write_text(
        "[run]\ndir = 'run'\n[survey]\nroot = 'files'\n[simulate]\nmock = 'mock-v1'\nn = 3\n"
    )
    done = specmill(tmp_path, "simulate", "card.toml")
    assert done.returncode == 2
    assert "files: not empty, and not made by simulate; give survey.root a new" in done.stderr
    assert everything(tmp_path / "files") == before
