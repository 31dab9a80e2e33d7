"""WEAVE files that are damaged, or whose redshifts are: rows stay, and say why."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from storage.border import NO_REDSHIFT
from storage.readers import weave
from storage.schema import Reason, Status
from tests.storage.weave_mock import (
    FIBRES,
    PIXELS,
    cname,
    counts,
    fibtable,
    l1,
    l2,
    load,
    redshifts,
)

CONFIG = "weave-lr-blue"


def test_absurd_counts_are_refused_where_they_are_data(tmp_path: Path) -> None:
    data, ivar = counts(), np.full((FIBRES, PIXELS), 0.25, "f4")
    data[1, 7] = data[2, 7] = 1e25
    ivar[2, 7] = 0
    l1(tmp_path / "stack_2.fit", DATA=data, IVAR=ivar)
    ds = load(tmp_path)
    assert ds["status"].to_numpy().tolist() == [1, 2, 1, 1, 1, 1]
    assert "flux is beyond 1e+10 in house units" in ds["reason"].item(1)


@pytest.mark.parametrize("step", [1e25, 100.0, 0.0])
def test_absurd_steps_of_wavelength_are_refused(tmp_path: Path, step: float) -> None:
    l1(tmp_path / "stack_2.fit", axis={"CD1_1": step})
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.BAD_GRID).all()
    assert f"401 pixels from 5000 A in steps of {step:g} A" in ds["reason"].item(0)


@pytest.mark.parametrize("damage", [b"garbage", b"SIMPLE  =" + b"\xff" * 5000])
def test_damaged_results_are_named_by_every_row_that_lacks_them(
    tmp_path: Path, damage: bytes
) -> None:
    l1(tmp_path / "stack_2.fit")
    (tmp_path / "L2").mkdir()
    beside = tmp_path / "L2" / "stack_2__stack_1_APS.fits"
    beside.write_bytes(damage)
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    words = r"stack_2\.fit.*no redshifts from L2/stack_2__stack_1_APS\.fits: .* or remove it"
    assert all(re.match(words, str(reason)) for reason in ds["reason"].to_numpy())
    beside.unlink()
    ds = load(tmp_path)
    assert (ds["status"] == Status.DONE).all()
    assert np.isnan(ds["z"]).all()
    assert (ds["zwarn"] == NO_REDSHIFT).all()


def test_results_that_come_and_go_are_beside_the_file_at_once(tmp_path: Path) -> None:
    path = str(l1(tmp_path / "L1" / "stack_2.fit"))
    reader = weave.build()

    def beside() -> tuple[str, ...]:
        return reader.beside(path, str(tmp_path), CONFIG)

    results = tmp_path / "L2" / "stack_2__stack_1_APS.fits"
    assert beside() == ()
    for _ in range(3):
        l2(results, **redshifts(np.array([1, 2])))
        time.sleep(0.02)
        assert beside() == (str(results),)
        results.unlink()
        time.sleep(0.02)
        assert beside() == ()


@pytest.mark.parametrize("lost", ["Z", "ZERR", "ZWARN", "CLASS"])
def test_results_without_a_column_are_refused(tmp_path: Path, lost: str) -> None:
    l1(tmp_path / "stack_2.fit")
    found = redshifts(np.arange(1, 7))
    del found[lost]
    l2(tmp_path / "stack_2__stack_1_APS.fits", **found)
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert f"CLASS_TABLE has no column {lost}; fetch that file again" in ds["reason"].item(0)


def test_a_name_with_two_redshifts_has_none(tmp_path: Path) -> None:
    l1(tmp_path / "stack_2.fit")
    found = redshifts(np.array([1, 2, 3]))
    found["CNAME"] = [cname(1), cname(2), cname(2)]
    l2(tmp_path / "stack_2__stack_1_APS.fits", **found)
    ds = load(tmp_path)
    np.testing.assert_allclose(ds["z"][:3], [0.1, np.nan, np.nan])
    assert ds["zwarn"].to_numpy()[1:3].tolist() == [NO_REDSHIFT] * 2


def test_fibres_that_are_numbers_where_text_was_expected_are_refused(tmp_path: Path) -> None:
    l1(tmp_path / "stack_2.fit", table=fibtable(TARGUSE=np.zeros(FIBRES, int)))
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert "TARGUSE is >i4, expected text" in ds["reason"].item(0)
