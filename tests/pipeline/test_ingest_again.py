"""Ingest of a folder that has changed: what is new comes in, what is changed is read again."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from pipeline import ingest, simulate
from pipeline.card import Card
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline import surveys
from tests.pipeline.runs import contents, specmill
from tests.pipeline.surveys import GROUP, spectra

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_chunks")]

N = 11


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Path:
    """A survey of eleven files (two chunks, one half full), ingested; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    surveys.write(folder / "files", N)
    ingest.ingest(surveys.card(folder), client)
    return folder


@pytest.fixture
def card(made: Path, tmp_path: Path) -> Card:
    """The card of a copy of it."""
    return surveys.card(Path(shutil.copytree(made, tmp_path / "copy")))


def root(card: Card) -> Path:
    return Path(card.survey.root)


def more(card: Card, folder: str = "00", n: int = 3) -> list[Path]:
    """Files of other objects in a folder that sorts before all others."""
    found = surveys.Sparse().truth(n, surveys.GRID, 5, "survey-3")
    seen = surveys.Sparse().observe(found, surveys.GRID, 5, "survey-3-second")
    return [Path(p) for p in surveys.SDSS.write(seen, str(root(card) / folder), "sdss")]


def change(file: Path) -> None:
    surveys.put(1, "flux", 7.0)(file)


def test_what_is_new_is_appended_and_what_is_there_stays(card: Card, client: Client) -> None:
    before = spectra(card)
    new = more(card)
    tally = ingest.ingest(card, client)
    ds = spectra(card)
    assert tally.rows == {Status.DONE: N + 3}
    assert ds["source"].to_numpy()[N:].tolist() == [str(f.relative_to(root(card))) for f in new]
    for name in before.variables:
        np.testing.assert_array_equal(
            ds[name][:N] if name != "wavelength" else ds[name], before[name]
        )
    assert (ds["object_id"] > 0).all()
    assert len(np.unique(ds["object_id"])) == N + 3
    assert ingest.is_done(card)


def test_a_grown_store_holds_what_one_made_at_once_holds(
    card: Card, tmp_path: Path, client: Client
) -> None:
    more(card, "zz")
    ingest.ingest(card, client)
    fresh = surveys.card(
        tmp_path / "copy", survey={"root": str(root(card)), "store": str(tmp_path / "b.icechunk")}
    )
    ingest.ingest(fresh, client)
    assert contents(card.store, GROUP) == contents(fresh.store, GROUP)


def test_a_changed_file_is_a_new_version_of_its_row_and_history_shows_both(
    card: Card, client: Client
) -> None:
    before, old = spectra(card), Survey.open(card.store)
    file = root(card) / str(before["source"][4].item())
    change(file)
    assert not ingest.is_done(card)
    ingest.ingest(card, client)
    now = spectra(card)
    assert now["digest"][4].item() != before["digest"][4].item()
    good = now["ivar"][4] > 0
    assert (now["flux"][4] == 7.0).to_numpy()[good.to_numpy()].all()
    others = np.arange(N) != 4
    for name in before.data_vars:
        np.testing.assert_array_equal(now[name][others], before[name][others], err_msg=str(name))
    np.testing.assert_array_equal(now["object_id"], before["object_id"])
    then = Survey.open(card.store, snapshot=old.snapshot).dataset(GROUP).load()
    np.testing.assert_array_equal(then["flux"], before["flux"])
    said = [v for v in Survey.open(card.store).history() if "changed" in v.metadata]
    assert [v.metadata["changed"] for v in said] == [[str(file)]]
    assert "1 rows of changed files" in said[0].message


def test_a_file_that_was_only_touched_is_not_read_again(card: Card, client: Client) -> None:
    before = spectra(card)
    file = root(card) / str(before["source"][4].item())
    os.utime(file, ns=(1, 1))
    assert not ingest.is_done(card)
    tally = ingest.ingest(card, client)
    now = spectra(card)
    assert tally.computed == 0
    assert now["source_time"][4] == 1
    for name in set(before.data_vars) - {"source_time"}:
        np.testing.assert_array_equal(now[name], before[name], err_msg=str(name))
    assert ingest.is_done(card)


def test_rows_of_files_that_are_gone_stay(card: Card, client: Client) -> None:
    files = surveys.paths(root(card))
    before = spectra(card)
    files[3].unlink()
    change(files[4])
    more(card)
    plan = ingest.plan(card)
    assert (plan.new, plan.changed, plan.gone, plan.lost) == (3, 1, 1, 0)
    ingest.ingest(card, client)
    now = spectra(card)
    assert (now["status"] == Status.DONE).all()
    np.testing.assert_array_equal(now["flux"][3], before["flux"][3])
    assert ingest.is_done(card)


def test_a_renamed_file_is_not_in_twice(card: Card, client: Client) -> None:
    file = surveys.paths(root(card))[3]
    file.rename(root(card) / "spec-9999-59999-0001.fits")
    ingest.ingest(card, client)
    now = spectra(card)
    assert now["status"].to_numpy().tolist() == [Status.DONE] * N + [Status.QUARANTINED]
    assert now["reason_code"][N] == Reason.DUPLICATE


def test_a_copy_counts_when_its_original_is_another_spectrum_now(
    card: Card, client: Client
) -> None:
    file = surveys.paths(root(card))[3]
    copy = root(card) / "zz" / file.name
    copy.parent.mkdir()
    shutil.copy(file, copy)
    ingest.ingest(card, client)
    assert spectra(card)["reason_code"][N] == Reason.DUPLICATE
    (other,) = more(card, "elsewhere", 1)
    other.rename(file)
    ingest.ingest(card, client)
    now = spectra(card)
    assert (now["status"] == Status.DONE).all()
    assert now["observation"][N].item() != now["observation"][3].item()


def test_a_file_that_comes_back_better_is_read(card: Card, client: Client) -> None:
    file, content = surveys.paths(root(card))[3], surveys.paths(root(card))[3].read_bytes()
    file.write_bytes(content[:5000])
    ingest.ingest(card, client)
    assert spectra(card)["status"][3] == Status.QUARANTINED
    file.write_bytes(content)
    ingest.ingest(card, client)
    assert spectra(card)["status"][3] == Status.DONE
    assert spectra(card)["reason"][3].item() == ""


def test_products_of_new_and_changed_rows_are_pending(card: Card, client: Client) -> None:
    survey = Survey.open(card.store)
    with writing(card.store, "test") as writer:
        made = survey.dataset(GROUP)[["status", "reason_code", "flux"]].load()
        writer.create_group("denoised/sdss/ppca-1a2b3c4d", made, {})
        writer.write_columns("denoised/sdss/ppca-1a2b3c4d", 0, {"status": np.ones(N, "u1")})
        writer.commit("product")
    change(surveys.paths(root(card))[4])
    more(card)
    ingest.ingest(card, client)
    status = Survey.open(card.store).dataset("denoised/sdss/ppca-1a2b3c4d")["status"].to_numpy()
    assert np.flatnonzero(status == Status.PENDING).tolist() == [4, N, N + 1, N + 2]


def test_a_dry_run_says_what_would_happen_and_does_nothing(card: Card) -> None:
    folder = root(card).parent
    (folder / "card.toml").write_text("[run]\ndir = 'run'\n[survey]\nroot = 'files'\n")
    change(surveys.paths(root(card))[4])
    more(card)
    before = Survey.open(card.store).snapshot
    done = specmill(folder, "ingest", "card.toml", "--dry-run")
    assert done.returncode == 0
    assert "3 new, 1 changed" in done.stdout
    assert Survey.open(card.store).snapshot == before


def test_another_mock_survey_is_refused(tmp_path: Path, client: Client) -> None:
    card = surveys.mock_card(tmp_path)
    simulate.simulate(card)
    ingest.ingest(card, client)
    before = contents(card.store, GROUP)
    shutil.rmtree(card.survey.root)
    other = surveys.mock_card(tmp_path, seed=2)
    simulate.simulate(other)
    assert not ingest.is_done(other)
    with pytest.raises(ValueError, match=r"holds another mock survey .*give survey\.store a new"):
        ingest.ingest(other, client)
    assert contents(card.store, GROUP) == before
