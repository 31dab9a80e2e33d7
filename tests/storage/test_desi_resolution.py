"""The resolution of DESI: sigma of Gaussian kernels, and the matrix itself."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import dia_matrix

from storage.desi import resolution as desi_resolution
from storage.readers import desi
from storage.schema import Reason, Status
from tests.storage import desi_mock as mock

OFFSETS = np.arange(5, -6, -1)


def matrix(diagonals: np.ndarray) -> dia_matrix:
    size = diagonals.shape[1]
    return dia_matrix((diagonals, OFFSETS), shape=(size, size))


@pytest.mark.parametrize("sigma", [0.7, 0.9, 1.2])
def test_a_gaussian_has_its_sigma(tmp_path: Path, sigma: float) -> None:
    images = mock.arms(1)
    for arm in mock.ARMS:
        images[f"{arm}_RESOLUTION"][0] = mock.gaussian(images[f"{arm}_FLUX"].shape[1], sigma)
    mock.save(tmp_path, images, mock.fibermap(1))
    lsf = mock.read(tmp_path)["lsf"][0]
    # Cut at 5 pixels, and sampled: 0.2 per cent at most for these.
    np.testing.assert_allclose(lsf[:300], sigma, rtol=3e-3)
    assert not lsf[300:].any()


def test_sigma_is_that_of_what_a_pixel_takes_not_of_what_it_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = mock.arms(1)
    stored = rng.uniform(0.5, 1, images["B_RESOLUTION"].shape).astype("f4")
    images["B_RESOLUTION"][:] = stored
    mock.save(tmp_path, images, mock.fibermap(1))
    row = matrix(stored[0]).toarray()[50]
    place = np.arange(100)
    mean = (row * place).sum() / row.sum()
    expected = np.sqrt((row * (place - mean) ** 2).sum() / row.sum())
    np.testing.assert_allclose(mock.read(tmp_path)["lsf"][0, 50], expected, rtol=1e-3)


def test_an_arm_with_more_weight_has_more_of_the_sigma(tmp_path: Path) -> None:
    images = mock.arms(1)
    images["B_IVAR"][:], images["R_IVAR"][:] = 1, 3
    images["B_RESOLUTION"][0] = mock.gaussian(100, 0.7)
    images["R_RESOLUTION"][0] = mock.gaussian(110, 1.1)
    mock.save(tmp_path, images, mock.fibermap(1))
    expected = np.sqrt(0.25 * 0.7**2 + 0.75 * 1.1**2)
    np.testing.assert_allclose(mock.read(tmp_path)["lsf"][0, 95], expected, rtol=3e-3)


def test_a_pixel_without_data_keeps_its_line_spread(tmp_path: Path) -> None:
    images = mock.arms(1)
    images["B_IVAR"][0, 50] = 0
    mock.save(tmp_path, images, mock.fibermap(1))
    np.testing.assert_allclose(mock.read(tmp_path)["lsf"][0, 50], mock.SIGMA, rtol=3e-3)


def test_real_sigmas_are_those_of_the_spectrographs(survey_data: Path) -> None:
    # DESI: R = 2000-3200 in B, 3200-4100 in R, 4100-5100 in Z (Abareshi et al. 2022, table 5).
    lsf = mock.read(survey_data / "desi", grouping="healpix")["lsf"]
    fwhm = 0.8 * 2.3548 * lsf.isel(spectrum=0)
    power = (fwhm["wavelength"] / fwhm).sel(wavelength=[4000, 6700, 8700], method="nearest")
    assert (power > [2000, 3200, 4100]).all()
    assert (power < [3200, 4700, 5800]).all()


def test_the_matrix_of_joined_arms_does_what_joined_matrices_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    images = mock.arms(1)
    for arm in mock.ARMS:
        for part in ("IVAR", "RESOLUTION"):
            image = images[f"{arm}_{part}"]
            image[:] = rng.uniform(0.5, 2, image.shape)
    mock.save(tmp_path, images, mock.fibermap(1))
    truth = np.zeros(desi.GRID.size)
    truth[:300] = rng.normal(size=300)
    total, weight = np.zeros(300), np.zeros(300)
    for arm, (first, last) in mock.ARMS.items():
        seen = matrix(images[f"{arm}_RESOLUTION"][0]) @ truth[first:last]
        total[first:last] += images[f"{arm}_IVAR"][0] * seen
        weight[first:last] += images[f"{arm}_IVAR"][0]
    found = mock.read(tmp_path, resolution="diagonals")["resolution"]
    assert (found.dims, found.dtype) == (("spectrum", "diagonal", "wavelength"), np.float32)
    actual = matrix(found[0].to_numpy()) @ truth
    np.testing.assert_allclose(actual[:300], total / weight, rtol=1e-4, atol=1e-5)


def test_fewer_diagonals_are_put_in_the_middle(tmp_path: Path) -> None:
    images = mock.arms(1)
    for arm in mock.ARMS:
        images[f"{arm}_RESOLUTION"] = images[f"{arm}_RESOLUTION"][:, 2:-2]
    mock.save(tmp_path, images, mock.fibermap(1))
    found = mock.read(tmp_path, resolution="diagonals")["resolution"][0]
    expected = [0, 0, *mock.gaussian(1)[2:-2, 0], 0, 0]
    np.testing.assert_allclose(found[:, 50], expected, rtol=1e-6)


def test_more_diagonals_are_refused_unless_sigma_is_enough(tmp_path: Path) -> None:
    images = mock.arms(1)
    for arm in mock.ARMS:
        images[f"{arm}_RESOLUTION"] = np.pad(images[f"{arm}_RESOLUTION"], [(0, 0), (1, 1), (0, 0)])
    mock.save(tmp_path, images, mock.fibermap(1))
    assert (mock.read(tmp_path)["status"] == Status.DONE).all()
    refused = mock.read(tmp_path, resolution="diagonals")
    assert refused["reason_code"][0] == Reason.BAD_GRID
    assert "13 diagonals, at most 11" in refused["reason"][0].item()


def test_kernels_and_diagonals_are_inverse_but_for_the_ends() -> None:
    stored = np.random.default_rng(5).normal(size=(2, 11, 40))
    again = desi_resolution.diagonals(desi_resolution.kernels(stored))
    np.testing.assert_array_equal(again[:, :, 5:-5], stored[:, :, 5:-5])
