"""Objects and their sides: one object, one side, whatever the order, the plate or the file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.objects import Shares, assign, split
from storage.schema import Split

ARCSEC = 1 / 3600


def objects(ra: list[float], observation: list[str], **more: object) -> np.ndarray:
    n = len(ra)
    found = assign(
        np.full(n, "sdss"),
        np.full(n, ""),
        np.array(observation),
        np.array(ra),
        np.zeros(n),
        "position",
        **more,  # type: ignore[arg-type]  # only `existing`
    )
    return found.object_id


def test_rows_within_1_5_arcsec_are_one_object_and_others_are_not() -> None:
    ids = objects([10.0, 10 + 1.4 * ARCSEC, 10 + 5 * ARCSEC], ["a", "b", "c"])
    assert ids[0] == ids[1] != ids[2]


def test_a_chain_of_neighbours_is_one_object() -> None:
    assert len(set(objects([10 + k * ARCSEC for k in range(4)], list("abcd")))) == 1


def test_a_repeat_on_another_plate_falls_on_the_same_side() -> None:
    rng = np.random.default_rng(1)
    ra = rng.uniform(0, 360, 500)
    plates = [f"{plate:04d}-{k}" for plate in (266, 1325) for k in range(500)]
    ids = objects([*ra, *ra], plates)
    side = split(ids, "salt", Shares())
    np.testing.assert_array_equal(side[:500], side[500:])
    assert set(side) == {Split.TRAIN, Split.VAL, Split.CALIB, Split.TEST}


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    ra = np.array([10 + (k // 2) * 0.1 for k in range(12)])
    names = np.array([f"row{k}" for k in range(12)])
    expected = objects(list(ra), list(names))
    np.testing.assert_array_equal(objects(list(ra[order]), list(names[order])), expected[order])


def test_the_survey_own_id_joins_rows_wherever_they_are() -> None:
    found = assign(
        np.array(["desi", "desi", "desi", "desi"]),
        np.array(["7", "7", "8", ""]),
        np.array(["a", "b", "c", "d"]),
        np.array([0.0, 90.0, 0.0, 0.0]),
        np.zeros(4),
        "target_id",
    )
    ids = found.object_id
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] == 0, "a row without a name has no identity"


def test_rows_without_a_position_have_no_identity_and_no_side() -> None:
    ids = objects([np.nan, 10.0], ["a", "b"])
    assert ids[0] == 0
    assert split(ids, "salt", Shares())[0] == Split.NONE


def test_existing_ids_never_change_and_a_late_bridge_is_reported() -> None:
    apart = [10.0, 10 + 2.4 * ARCSEC]
    old = objects(apart, ["a", "b"])
    assert old[0] != old[1]
    between = [*apart, 10 + 1.2 * ARCSEC]
    found = assign(
        np.full(3, "sdss"),
        np.full(3, ""),
        np.array(["a", "b", "c"]),
        np.array(between),
        np.zeros(3),
        "position",
        existing=np.array([*old, 0], np.uint64),
    )
    np.testing.assert_array_equal(found.object_id[:2], old)
    assert found.object_id[2] in old
    assert found.bridged.all()


def test_another_salt_is_another_split_of_the_same_shares() -> None:
    ids = np.arange(1, 20_001, dtype=np.uint64)
    one, two = (split(ids, salt, Shares(train=0.5, val=0.5, calib=0, test=0)) for salt in "ab")
    # Independent coins agree half of the time; 5 sigma of a binomial of 20,000.
    assert abs((one == two).mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)
    assert abs((one == Split.TRAIN).mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"train \+ val \+ calib \+ test is 0\.9"):
        Shares(train=0.6)
