"""Mocks in the form of WEAVE: what is written is as the data model has it, and comes back."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from storage import schema
from storage.readers import weave
from storage.schema import ObjectType, Status
from storage.weave.layout import GRIDS
from tests.storage.weave_mock import load

N = 70


def mock(config: str, first: int = 0) -> xr.Dataset:
    grid = GRIDS[config]
    rng = np.random.default_rng(first)
    ds = schema.blank(N, grid)
    good = np.ones((N, grid.size), bool)
    good[:, 500:520] = False
    ds["ivar"][:] = np.where(good, rng.uniform(1, 4, good.shape), 0)
    ds["flux"][:] = np.where(good, rng.normal(10, 1, good.shape), 0)
    row = first + np.arange(N)
    ds["ra"][:], ds["dec"][:] = 10 + 0.01 * row, -5 + 0.01 * row
    ds["z"][:], ds["z_err"][:], ds["zwarn"][:] = 0.01 + 1e-4 * row, 1e-5, 4
    ds["class"][:], ds["subclass"][:], ds["survey"][:] = "GALAXY", "AGN", "mock"
    ds["ebv"][:], ds["ebv_known"][:], ds["vdisp"][:] = 0.03, 1, 150
    ds["mjd"][:], ds["object_type"][:] = 52000 + row, row % 3
    ds["target_id"][:] = [f"{number:.5f}" for number in row]
    ds["observation"][:] = [f"0266-51602-{number:04d}" for number in row]
    ds["status"][:] = Status.DONE
    return schema.check(ds)


@pytest.mark.parametrize("config", GRIDS)
def test_every_configuration_comes_back_without_rebinning(tmp_path: Path, config: str) -> None:
    expected = mock(config)
    weave.build().write(expected, str(tmp_path), config)
    actual = load(tmp_path, config)
    assert (actual["status"] == Status.DONE).all(), actual["reason"].to_numpy()
    for name in ("flux", "ivar", "z", "z_err", "ra", "dec", "mjd", "ebv", "ebv_known", "vdisp"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, err_msg=name)
    for name in ("observation", "target_id", "object_type", "zwarn", "class", "subclass"):
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def test_a_mock_has_the_extensions_of_the_data_model(tmp_path: Path) -> None:
    stack, results = weave.build().write(mock("weave-hr-green"), str(tmp_path), "weave-hr-green")
    with fits.open(stack) as hdus:
        hdus.verify("exception")
        names = ["PRIMARY", "BLUE_DATA", "BLUE_IVAR", "BLUE_SENSFUNC", "FIBTABLE"]
        assert [hdu.name for hdu in hdus] == names
        assert hdus[0].header["VPH"] == "HighRes2"
        flux = hdus["BLUE_DATA"].data * hdus["BLUE_SENSFUNC"].data.astype(float) * 1e17
        np.testing.assert_allclose(flux, mock("weave-hr-green")["flux"], rtol=1e-6)
        uses = {int(ObjectType.SCIENCE): "T", int(ObjectType.SKY): "S", 2: "C"}
        kinds = mock("weave-hr-green")["object_type"].to_numpy().tolist()
        assert hdus["FIBTABLE"].data["TARGUSE"].tolist() == [uses[kind] for kind in kinds]
    with fits.open(results) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["L1_REF_G"] == Path(stack).name
        assert hdus["CLASS_TABLE"].data["CLASS"].tolist() == ["GALAXY"] * N


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    config = "weave-lr-blue"
    one, other = (
        [
            (Path(path).name, Path(path).read_bytes())
            for path in weave.build().write(mock(config), str(tmp_path / folder), config)
        ]
        for folder in ("one", "other")
    )
    assert one == other
    weave.build().write(mock(config), str(tmp_path / "one"), config)
    assert len(list((tmp_path / "one").iterdir())) == 2


def test_other_rows_and_other_arms_are_other_files(tmp_path: Path) -> None:
    paths = [
        path
        for config, first in (("weave-lr-blue", 0), ("weave-lr-blue", N), ("weave-lr-red", 0))
        for path in weave.build().write(mock(config, first), str(tmp_path), config)
    ]
    assert len(set(paths)) == 6
    assert load(tmp_path, "weave-lr-blue").sizes["spectrum"] == 2 * N


def test_an_observation_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    ds = mock("weave-lr-blue")
    ds["observation"][3] = ds["observation"].values[4]
    with pytest.raises(ValueError, match=r"'0266-51602-0004' is there twice"):
        weave.build().write(ds, str(tmp_path), "weave-lr-blue")
    assert not list(tmp_path.iterdir())


def test_spectra_on_another_grid_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not on the grid of weave-lr-red"):
        weave.build().write(mock("weave-lr-blue"), str(tmp_path), "weave-lr-red")
