"""Ingest of files that others stand beside: redshifts that are changed, come late, or go."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.table import Table
from distributed import Client

from pipeline import ingest
from pipeline.card import Card
from pipeline.plan import Plan
from pipeline.verify import verify
from storage import files
from storage.border import NO_REDSHIFT
from storage.schema import Reason, Status
from storage.store import Survey
from tests.pipeline import surveys
from tests.storage import desi_mock, table_mock, weave_mock

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_chunks")]

N = 4
OTHER = "coadd-main-dark-10.fits"
CNAMES = [weave_mock.cname(number) for number in range(1, weave_mock.FIBRES + 1)]


def spectra(card: Card) -> xr.Dataset:
    return Survey.open(card.store).dataset(f"spectra/{card.survey.config}").load()


def settled(card: Card, client: Client, plan: Plan) -> xr.Dataset:
    """The rows after an ingest that does what the plan says; then there is nothing to do."""
    assert str(ingest.plan(card)) == str(plan)
    ingest.ingest(card, client)
    assert ingest.is_done(card)
    return spectra(card)


def sound(card: Card) -> bool:
    """Whether all rows are those of the files."""
    return not list(verify(card.store, root=card.survey.root))


@pytest.fixture
def desi(tmp_path: Path) -> Card:
    """The card of two files of four targets; the second has no redrock file."""
    root = tmp_path / "files"
    desi_mock.survey(root, N)
    fibers = desi_mock.fibermap(N)
    fibers["TARGETID"] = fibers["TARGETID"] + 5000
    desi_mock.save(root, desi_mock.arms(N), fibers, OTHER)
    survey = {"root": str(root), "reader": "desi", "config": "desi"}
    return surveys.card(tmp_path, survey=survey)


def beside(card: Card, name: str = desi_mock.NAME) -> Path:
    return Path(card.survey.root, "redrock-" + name.partition("-")[2])


def redshifts(**columns: Any) -> dict[str, Any]:
    return desi_mock.redshifts(N) | columns


def test_a_changed_redrock_file_brings_its_redshifts_alone(desi: Card, client: Client) -> None:
    ingest.ingest(desi, client)
    before = spectra(desi)
    own = (before["source"] == desi_mock.NAME).to_numpy()
    np.testing.assert_allclose(before["z"][own], [0.1, 0.2, 0.3, 0.4])
    desi_mock.redrock(Path(desi.survey.root), redshifts(Z=np.full(N, 0.7)))
    assert not ingest.is_done(desi)
    (said,) = verify(desi.store, root=desi.survey.root)
    assert "redrock-main-dark-9.fits has; ingest again" in said.what
    now = settled(desi, client, Plan(changed=N, names=[desi_mock.NAME]))
    assert sound(desi)
    assert (now["z"][own] == 0.7).all()
    assert (now["digest"][own] != before["digest"][own]).all()
    for name in before.data_vars:
        np.testing.assert_array_equal(now[name][~own], before[name][~own], err_msg=str(name))
    np.testing.assert_array_equal(now["flux"], before["flux"])
    np.testing.assert_array_equal(now["object_id"], before["object_id"])


def test_size_time_and_digest_are_those_of_both_files(desi: Card, client: Client) -> None:
    path, redrock = Path(desi.survey.root, desi_mock.NAME), beside(desi)
    os.utime(path, ns=(3, 3))
    os.utime(redrock, ns=(5, 5))
    ingest.ingest(desi, client)
    ds = spectra(desi)
    row = ds.isel(spectrum=int(np.flatnonzero(ds["source"] == desi_mock.NAME)[0]))
    assert row["source_size"] == path.stat().st_size + redrock.stat().st_size
    assert row["source_time"] == 5
    assert row["digest"] == files.digest([str(path), str(redrock)])
    alone = ds.isel(spectrum=int(np.flatnonzero(ds["source"] == OTHER)[0]))
    assert alone["digest"] == files.digest([str(Path(desi.survey.root, OTHER))])
    # One that was only touched is not read again.
    os.utime(redrock, ns=(7, 7))
    assert not ingest.is_done(desi)
    now = settled(desi, client, Plan())
    for name in set(ds.data_vars) - {"source_time"}:
        np.testing.assert_array_equal(now[name], ds[name], err_msg=str(name))
    assert (now["source_time"] == 7).sum() == N


@pytest.mark.slow
def test_a_redrock_file_that_comes_late_is_read_and_one_that_goes_is_forgotten(
    desi: Card, client: Client
) -> None:
    ingest.ingest(desi, client)
    other = (spectra(desi)["source"] == OTHER).to_numpy()
    before = spectra(desi).isel(spectrum=other)
    assert np.isnan(before["z"]).all()
    assert (before["zwarn"] == NO_REDSHIFT).all()
    ids = desi_mock.redshifts(N)["TARGETID"] + 5000
    desi_mock.redrock(Path(desi.survey.root), redshifts(TARGETID=ids), OTHER)
    now = settled(desi, client, Plan(changed=N)).isel(spectrum=other)
    np.testing.assert_allclose(now["z"], [0.1, 0.2, 0.3, 0.4])
    assert now["zwarn"].to_numpy().tolist() == [0, 1, 0, 1]
    beside(desi, OTHER).unlink()
    last = settled(desi, client, Plan(changed=N)).isel(spectrum=other)
    for name in before.data_vars:
        np.testing.assert_array_equal(last[name], before[name], err_msg=str(name))


@pytest.mark.slow
def test_a_redrock_file_that_is_repaired_frees_its_rows(desi: Card, client: Client) -> None:
    whole = beside(desi).read_bytes()
    beside(desi).write_bytes(whole[:3000])
    ingest.ingest(desi, client)
    ds = spectra(desi)
    own = (ds["source"] == desi_mock.NAME).to_numpy()
    assert (ds["status"][own] == Status.QUARANTINED).all()
    assert "redrock-main-dark-9.fits: truncated" in ds["reason"][own].item(0)
    beside(desi).write_bytes(whole)
    now = settled(desi, client, Plan(changed=N))
    assert (now["status"] == Status.DONE).all()
    assert np.isfinite(now["z"][own]).all()


@pytest.mark.slow
def test_results_of_weave_that_come_late_change_or_go_are_noticed(
    tmp_path: Path, client: Client
) -> None:
    root, n = tmp_path / "files", weave_mock.FIBRES
    weave_mock.l1(root / "L1" / "stack_2.fit")
    results = root / "L2" / "stack_2__stack_1_APS.fits"
    survey = {"root": str(root), "reader": "weave", "config": "weave-lr-blue"}
    card = surveys.card(tmp_path, survey=survey)
    ingest.ingest(card, client)
    assert (spectra(card)["zwarn"] == NO_REDSHIFT).all()
    for z in (0.3, 0.6):
        results.unlink(missing_ok=True)
        kind = {"CLASS": ["GALAXY"] * n, "SUBCLASS": [""] * n}
        fitted = {"ZERR": np.full(n, 1e-4), "ZWARN": np.zeros(n, int), "Z": np.full(n, z)}
        weave_mock.l2(results, CNAME=CNAMES, **fitted, **kind)
        now = settled(card, client, Plan(changed=n))
        assert (now["z"] == z).all()
        assert (now["zwarn"] == 0).all()
    results.write_bytes(results.read_bytes()[:4000])
    now = settled(card, client, Plan(changed=n))
    assert (now["reason_code"] == Reason.UNREADABLE).all()
    assert sound(card)
    assert "no redshifts from L2/stack_2__stack_1_APS.fits" in now["reason"].item(0)
    results.unlink()
    now = settled(card, client, Plan(changed=n))
    assert (now["status"] == Status.DONE).all()
    assert np.isnan(now["z"]).all()


def test_a_changed_catalogue_brings_its_redshifts(tmp_path: Path, client: Client) -> None:
    root = tmp_path / "files"
    for name in ("a", "b"):
        table_mock.write_table(root / f"{name}.fits", table_mock.columns())
    listed = Table({"file": ["a", "b"], "Z": [0.2, 0.3]})
    listed.write(root / "list.csv")
    options = {"catalog": "list.csv", "grid": table_mock.GRID.model_dump()}
    survey = {"root": str(root), "reader": "table", "config": "table", "options": options}
    card = surveys.card(tmp_path, survey=survey)
    ingest.ingest(card, client)
    assert spectra(card)["z"].to_numpy().tolist() == [0.2, 0.3]
    listed["Z"] = [0.2, 0.4]
    listed.write(root / "list.csv", overwrite=True)
    assert not sound(card)
    now = settled(card, client, Plan(changed=2))
    assert now["z"].to_numpy().tolist() == [0.2, 0.4]
    assert sound(card)
