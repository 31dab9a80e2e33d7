"""The table of errors: what it says between its cells and beyond them, and its file."""

from pathlib import Path

import numpy as np
import pytest

from training import calibrated
from training.calibrated import Calibrated, Column, Curve, read


def test_between_bins_numbers_are_interpolated_and_beyond_them_they_are_too_large() -> None:
    found = by_hand({"half": [0.4, 0.2, 0.1]})
    snr = [1.0, 1.5, np.sqrt(1.5 * 3.0), 3.0, 6.0, 100.0]
    actual = found.look_up(["half"], ["GALAXY"] * 6, [0.05] * 6, snr)
    expected = [0.6, 0.4, np.sqrt(0.4 * 0.2), 0.2, 0.1, 0.1]
    np.testing.assert_allclose(actual["error"][:, 0], expected)
    np.testing.assert_allclose(actual["deshrunk"][:, 0], 2 * np.array(expected))
    # The draws grow by themselves.
    np.testing.assert_allclose(actual["factor"][:, 0], 2)


@pytest.mark.parametrize(
    ("kind", "z", "snr"),
    [
        ("GALAXY", 0.05, 0.99),
        ("GALAXY", 0.05, np.nan),
        ("GALAXY", 0.103, 5.0),
        ("GALAXY", -0.003, 5.0),
        ("GALAXY", np.nan, 5.0),
        ("STAR", 0.05, 5.0),
        ("", 0.05, 5.0),
    ],
)
def test_a_row_beyond_the_table_gets_no_number(kind: str, z: float, snr: float) -> None:
    found = by_hand({"half": [0.4, 0.2, 0.1]}).look_up(["half"], [kind], [z], [snr])
    assert all(np.isnan(value).all() for value in found.values())


def test_rows_and_indices_keep_their_places() -> None:
    found = by_hand({"half": [0.4, 0.2, 0.1], "step": [4, 2, 1]})
    names = ["step", "other", "half"]
    error = found.look_up(names, ["STAR", "GALAXY", "GALAXY"], [0.05] * 3, [3.0, 3.0, 6.0])["error"]
    np.testing.assert_allclose(error, [[np.nan] * 3, [2, np.nan, 0.2], [1, np.nan, 0.1]])


def test_redshifts_have_numbers_of_their_own() -> None:
    low, high = (by_hand({"half": [e] * 3}, z).curves[0] for e, z in ((1, (0, 0.1)), (2, (0.1, 1))))
    found = by_hand({"half": [3] * 3}).model_copy(update={"curves": (low, high)})
    z = [-0.01, 0.0999, 0.1, 1.01, 1.03]
    error = found.look_up(["half"], ["GALAXY"] * 5, z, [5.0] * 5)["error"][:, 0]
    np.testing.assert_allclose(error, [1, 1, 2, 2, np.nan])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([0.4, np.nan, 0.1], [0.4, 0.2, 0.1]),
        ([0.4, 0.2, np.nan], [0.4, 0.2, 0.2]),
        ([np.nan, 0.2, 0.1], [np.nan, 0.2, 0.1]),
        ([np.nan] * 3, [np.nan] * 3),
    ],
)
def test_a_gap_in_signal_to_noise_is_never_filled_with_too_small_an_error(
    cells: list[float], expected: list[float]
) -> None:
    kind, z = ["GALAXY"] * 3, [0.05] * 3
    error = by_hand({"half": cells}).look_up(["half"], kind, z, [1.5, 3.001, 6.0])["error"]
    np.testing.assert_allclose(error[:, 0], expected, rtol=1e-3)


def by_hand(errors: dict[str, list[float]], z: tuple[float, float] = (0.0, 0.1)) -> Calibrated:
    """A table at S/N 1.5, 3 and 6 of galaxies."""

    def column(error: list[float]) -> Column:
        value = np.array(error)
        plain = dict.fromkeys(("scatter", "bias", "slope", "intercept"), (1.0,) * 3)
        return Column(
            n=tuple(np.where(np.isnan(value), 0, 200)),
            error=tuple(value),
            factor=(2.0,) * 3,
            deshrunk=tuple(2 * value),
            deshrunk_factor=(2.0,) * 3,
            **plain,
        )

    indices = {name: column(error) for name, error in errors.items()}
    curve = Curve(kind="GALAXY", z=z, snr=(1.5, 3.0, 6.0), indices=indices)
    bins = ((1.0, 2.0), (2.0, 4.5), (4.5, 8.0))
    return Calibrated(recipe="hand", n=200, draws=16, bins=bins, curves=(curve,))


def test_a_table_is_a_file_beside_the_model(tmp_path: Path) -> None:
    made = by_hand({"half": [0.4, np.nan, 0.1]})
    assert read(tmp_path) is None
    assert calibrated.digest(tmp_path) == ""
    calibrated.write(tmp_path, made)
    assert read(tmp_path).model_dump_json() == made.model_dump_json()
    before = calibrated.digest(tmp_path)
    calibrated.write(tmp_path, made.model_copy(update={"recipe": "another"}))
    assert calibrated.digest(tmp_path) != before
    assert read(tmp_path).recipe == "another"


def test_a_table_that_cannot_be_read_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "errors.json").write_text("{}")
    with pytest.raises(ValueError, match=r"errors.json: no table .*remove it, and `specmill train"):
        read(tmp_path)
