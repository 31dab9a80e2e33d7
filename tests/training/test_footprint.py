"""Footprints: what is outside, and in which words."""

import numpy as np
import pytest
import xarray as xr
from numpy.typing import ArrayLike
from pydantic import ValidationError

from training.footprint import Footprint

KNOWN = Footprint(
    z=(0.02, 0.20), snr_g=(4, 40), classes=("GALAXY",), vdisp=(100, 150), snr_ceiling=25
)


def columns(**changed: ArrayLike) -> xr.Dataset:
    n = max(np.size(value) for value in changed.values()) if changed else 1
    values: dict[str, ArrayLike] = {
        "z": 0.1,
        "snr_g": 10.0,
        "class": "GALAXY",
        "zwarn": 0,
        "vdisp": 120.0,
        **changed,
    }
    return xr.Dataset(
        {name: ("spectrum", np.broadcast_to(value, n)) for name, value in values.items()}
    )


def training(n: int = 2001) -> xr.Dataset:
    even = np.linspace(0, 1, n)
    return columns(z=0.05 + 0.05 * even, snr_g=2 + 20 * even, vdisp=100 + 50 * even)


def test_learnt_ranges_are_trimmed_percentiles_and_z_is_widened() -> None:
    found = Footprint.learn(training(), np.zeros(2001))
    # 0.5-99.5 % of an even spread; 2 % of the span of z on both sides.
    span = 0.05 * 0.99
    expected = (0.05025 - 0.02 * span, 0.09975 + 0.02 * span)
    assert found.z == pytest.approx(expected)
    assert found.snr_g == pytest.approx((2.1, 21.9))
    assert found.vdisp == pytest.approx((100.25, 149.75))
    assert found.classes == ("GALAXY",)
    assert found.lsf_kms is None
    assert found.snr_ceiling is None


def test_training_rows_are_inside_what_they_taught() -> None:
    rows = training()
    inside, _ = Footprint.learn(rows, np.zeros(2001)).judge(rows, np.zeros(2001))
    assert inside.mean() > 0.98


def test_empty_training_rows_teach_nothing() -> None:
    rows = columns(z=[0.1, 0.12, 3.0], **{"class": ["GALAXY", "GALAXY", "QSO"]})
    found = Footprint.learn(rows, np.array([0.0, 0.0, 0.9]))
    assert found.z[1] < 0.13
    assert found.classes == ("GALAXY",)


def test_the_line_spread_is_learnt_too() -> None:
    rows = columns(z=[0.1, 0.1, 0.1])
    # 0 is no data: the last row has no line spread, and is no objection.
    lsf_kms = np.array([[60, 70, 80], [0, 70, 0], [0, 0, 0]], "f4")
    rows["lsf_kms"] = ("spectrum", "sparse"), lsf_kms
    found = Footprint.learn(rows, np.zeros(3))
    # 15 % about the one line spread there is, either way.
    assert found.lsf_kms == pytest.approx((70 * 0.85, 70 * 1.15))
    rows["lsf_kms"][:] = np.array([[43.0], [70.0], [0.0]])
    inside, reason = found.judge(rows, np.zeros(3))
    assert inside.tolist() == [False, True, True]
    assert "lsf_kms 43 outside 59.5-80.5" in reason[0]


def test_line_spreads_in_pixels_bound_nothing() -> None:
    assert Footprint.model_validate({**KNOWN.model_dump(), "lsf": (0.8, 1.0)}) == KNOWN


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"z": 0.31}, "z 0.31 outside 0.02-0.2"),
        ({"z": 0.001}, "z 0.001 outside 0.02-0.2"),
        ({"z": np.nan}, "z nan outside 0.02-0.2"),
        ({"snr_g": 1.5}, "snr_g 1.5 below 4"),
        ({"snr_g": np.nan}, "snr_g nan below 4"),
        ({"class": "QSO"}, "class QSO not of GALAXY"),
        ({"zwarn": 4}, "zwarn 4 is not 0"),
        ({"vdisp": 300.0}, "vdisp 300 outside 100-150"),
        ({"z": 0.31, "zwarn": 4}, "z 0.31 outside 0.02-0.2; zwarn 4 is not 0"),
    ],
)
def test_outside_says_why(changed: dict[str, ArrayLike], reason: str) -> None:
    inside, reasons = KNOWN.judge(columns(**changed), np.zeros(1))
    assert not inside[0]
    assert reasons.tolist() == [reason]


def test_too_much_missing_says_how_much() -> None:
    inside, reasons = KNOWN.judge(columns(), np.array([0.123]))
    assert not inside[0]
    assert reasons.tolist() == ["12.3% of the frame missing, more than 10.0%"]


def test_bounds_are_inside() -> None:
    inside, reasons = KNOWN.judge(columns(z=[0.02, 0.2], snr_g=[4, 40]), np.array([0.1, 0.0]))
    assert inside.all()
    assert reasons.tolist() == ["", ""]


def test_high_signal_is_inside_and_above_the_ceiling() -> None:
    rows = columns(snr_g=[10, 25, 400, np.nan])
    inside, _ = KNOWN.judge(rows, np.zeros(4))
    assert inside.tolist() == [True, True, True, False]
    assert KNOWN.above_ceiling(rows).tolist() == [False, False, True, False]


def test_without_a_ceiling_nothing_is_above() -> None:
    free = KNOWN.model_copy(update={"snr_ceiling": None})
    assert not free.above_ceiling(columns(snr_g=1e6)).any()


def test_unknown_velocity_dispersion_is_no_objection() -> None:
    inside, _ = KNOWN.judge(columns(vdisp=np.nan), np.zeros(1))
    assert inside.all()


def test_redshift_warning_may_be_let_pass() -> None:
    lenient = KNOWN.model_copy(update={"zwarn": False})
    assert lenient.judge(columns(zwarn=4), np.zeros(1))[0].all()


def test_rows_are_judged_one_by_one() -> None:
    rows = columns(z=[0.1, 0.5, 0.1], **{"class": ["GALAXY", "GALAXY", "STAR"]})
    inside, reasons = KNOWN.judge(rows, np.zeros(3))
    assert inside.tolist() == [True, False, False]
    assert [bool(reason) for reason in reasons] == [False, True, True]


def test_json_round_trip() -> None:
    assert Footprint.model_validate_json(KNOWN.model_dump_json()) == KNOWN


def test_missing_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"missing has shape \(2,\); expected \(1,\)"):
        KNOWN.judge(columns(), np.zeros(2))


def test_column_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'vdisp' among"):
        KNOWN.judge(columns().drop_vars("vdisp"), np.zeros(1))


def test_no_usable_training_row_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 1 training rows"):
        Footprint.learn(columns(), np.ones(1))


def test_column_without_a_value_bounds_nothing() -> None:
    with pytest.raises(ValueError, match="snr_g is finite in no training row"):
        Footprint.learn(columns(snr_g=np.nan), np.zeros(1))


def test_range_that_descends_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected \\(lowest, highest\\)"):
        Footprint(z=(0.2, 0.1), snr_g=(1, 2), classes=("GALAXY",))
