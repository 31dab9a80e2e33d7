"""Emission lines of a spectrum do not depend on who is beside it, to the bit."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from pipeline.lines.fit import Lines, measure_lines
from pipeline.lines.products import chosen, product
from storage.grid import Grid, vacuum_to_air
from tests.pipeline.starlit import LSF, SDSS, starlit

N = 48
LINEAR = Grid(kind="linear", start=3600, step=0.8, size=7780)


class Mixed:
    """Strong and weak lines, narrow and broad stars, near and far, with and without gaps."""

    def __init__(self, grid: Grid, medium: str) -> None:
        bright = starlit(N // 2, 8.0, 15.0, grid=grid, z=(0.02, 0.5))
        faint = starlit(N // 2, 0.5, 8.0, grid=grid, z=(0.02, 0.2), sigma=200.0, seed=1)
        self.flux, self.ivar, self.z = (
            np.concatenate([getattr(part, name) for part in (bright, faint)])
            for name in ("flux", "ivar", "z")
        )
        rng = np.random.default_rng(0)
        for row in range(0, N, 3):
            self.flux[row] = gaussian_filter1d(self.flux[row], rng.uniform(0.5, 6))
            first = rng.integers(0, grid.size - 400)
            self.ivar[row + 1, first : first + 300] = 0
        self.flux[7, 100], self.ivar[9], self.z[11] = np.nan, 0, np.nan
        self.wavelength = vacuum_to_air(grid.wavelength) if medium == "air" else grid.wavelength
        self.lsf, self.medium = np.full(grid.size, LSF), medium

    def measured(self, rows: np.ndarray) -> Lines:
        return measure_lines(
            self.wavelength, self.flux[rows], self.ivar[rows], self.z[rows],
            lsf=self.lsf, medium=self.medium, return_model=True,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("grid", "medium"),
    [(SDSS, "vacuum"), (SDSS, "air"), (LINEAR, "vacuum")],
    ids=["log", "log in air", "linear"],
)
def test_who_else_is_there_changes_no_bit(grid: Grid, medium: str) -> None:
    scene = Mixed(grid, medium)
    whole = scene.measured(np.arange(N))
    shuffled = np.random.default_rng(1).permutation(N)
    for rows in ([3], [16, 5, 30], range(17), shuffled, np.repeat(np.arange(N), 2)):
        some = scene.measured(np.array(rows))
        for name in Lines._fields:
            expected, actual = (getattr(found, name).numpy() for found in (whole, some))
            np.testing.assert_array_equal(actual, expected[rows], err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_of_a_product_is_rounded_alike_in_any_number_of_rows(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    left = torch.randn(300, 1521, generator=random, dtype=dtype)
    right = torch.randn(4, 1521, 378, generator=random, dtype=dtype)
    place = torch.randint(0, 4, (300,), generator=random)
    own = torch.stack([row @ right[at] for row, at in zip(left, place.tolist(), strict=True)])
    for function, expected in (
        (lambda rows: chosen(left[rows], right, place[rows]), own),
        (lambda rows: product(left[rows], right[0]), left @ right[0]),
    ):
        whole = function(torch.arange(300))
        torch.testing.assert_close(whole, expected, rtol=1e-3, atol=1e-3)
        for rows in ([7], [250, 3], range(33), range(299, -1, -1)):
            assert torch.equal(function(torch.tensor(rows)), whole[list(rows)])


def test_a_product_of_no_rows_has_none() -> None:
    none, right = torch.zeros(0, 5), torch.zeros(2, 5, 3)
    assert product(none, right[0]).shape == (0, 3)
    assert chosen(none, right, torch.zeros(0, dtype=torch.long)).shape == (0, 3)
