"""DESI files that are written: read again they give what they were made of."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy_healpix import HEALPix

from storage import schema
from storage.border import NO_REDSHIFT
from storage.readers import desi
from storage.schema import ObjectType, Status


def survey(n: int = 3) -> xr.Dataset:
    """Noisy spectra of n targets at one place, with gaps in the overlap of the arms."""
    rng = np.random.default_rng(8)
    ds = schema.blank(n, desi.GRID)
    ivar = rng.uniform(1, 2, ds["ivar"].shape).astype("f4")
    ivar[:, 2710:2720] = 0
    ds["ivar"][:] = ivar
    ds["flux"][:] = np.where(ivar > 0, rng.normal(1, 1, ivar.shape), 0)
    ds["mask"][:] = np.where(ivar > 0, 0, 1 << 31 | 2)
    ds["lsf"][:] = np.linspace(0.8, 1.1, desi.GRID.size)
    ds["ra"][:], ds["dec"][:] = 10 + 0.001 * np.arange(n), 33
    ds["z"][:], ds["z_err"][:], ds["zwarn"][:] = 0.3 * np.arange(n), 1e-5, 4
    ds["mjd"][:], ds["ebv"][:], ds["ebv_known"][:] = 59000.5, 0.25, 1
    ds["class"][:], ds["subclass"][:], ds["vdisp"][:] = "STAR", "M", 150
    ds["target_id"][:] = [str(39633345008634465 + row) for row in range(n)]
    ds["status"][:] = Status.DONE
    return ds


def again(paths: list[str], root: Path, config: str = "desi") -> xr.Dataset:
    reader = desi.build()
    parts = [reader.read(source, str(root), config) for source in reader.find(str(root), config)]
    assert sum(part.sizes["spectrum"] for part in parts) == sum(
        fits.getheader(path, "FIBERMAP")["NAXIS2"] for path in paths
    )
    return xr.concat(parts, "spectrum", data_vars="minimal", join="exact")


@pytest.mark.parametrize("config", ["desi", "desi-exposure"])
def test_all_that_is_written_comes_back(tmp_path: Path, config: str) -> None:
    expected = survey()
    expected["object_type"][:] = [ObjectType.SCIENCE, ObjectType.SKY, ObjectType.STANDARD]
    expected["ebv_known"][2], expected["ebv"][2] = 0, 0
    expected["fiberstatus"] = ("spectrum", np.array([0, 3, 0], "i4"))
    actual = again(desi.build().write(expected, str(tmp_path), config), tmp_path, config)
    exact = ("mask", "target_id", "class", "subclass", "object_type", "zwarn", "fiberstatus")
    for name in (*exact, "ebv_known", "vdisp", "mjd"):
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    for name in ("flux", "ivar", "z", "z_err", "ra", "dec", "ebv"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(actual["lsf"], expected["lsf"], rtol=0.01)
    assert (actual["status"] == Status.DONE).all()


def test_astropy_reads_what_is_written_and_the_arms_overlap(tmp_path: Path) -> None:
    (path,) = desi.build().write(survey(), str(tmp_path), "desi")
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus[:3]] == ["PRIMARY", "FIBERMAP", "EXP_FIBERMAP"]
        waves = {arm: hdus[f"{arm}_WAVELENGTH"].data[[0, -1]] for arm in "BRZ"}
        assert hdus["B_MASK"].data.dtype == np.uint32
        assert hdus["Z_RESOLUTION"].shape == (3, 11, 2881)
        assert hdus["R_FLUX"].header["BUNIT"] == "10**-17 erg/(s cm2 Angstrom)"
    np.testing.assert_allclose(waves["B"], [3600, 5800])
    np.testing.assert_allclose(waves["R"], [5760, 7620])
    np.testing.assert_allclose(waves["Z"], [7520, 9824])


def test_files_are_named_by_their_healpix_pixel(tmp_path: Path) -> None:
    ds = survey()
    ds["ra"][:] = [10, 200, 10.001]
    paths = desi.build().write(ds, str(tmp_path), "desi")
    sphere = HEALPix(nside=64, order="nested", frame="icrs")
    places = SkyCoord([10, 200] * units.deg, [33, 33] * units.deg)
    expected = sorted(sphere.skycoord_to_healpix(places).tolist())
    assert [int(Path(path).stem.rpartition("-")[2]) for path in paths] == expected


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    first = desi.build().write(survey(), str(tmp_path), "desi")
    content = [Path(path).read_bytes() for path in first]
    assert desi.build().write(survey(), str(tmp_path), "desi") == first
    assert [Path(path).read_bytes() for path in first] == content


def test_other_rows_in_the_same_pixel_give_another_file(tmp_path: Path) -> None:
    ds = survey(4)
    first = desi.build().write(ds.isel(spectrum=[0, 1]), str(tmp_path), "desi")
    second = desi.build().write(ds.isel(spectrum=[2, 3]), str(tmp_path), "desi")
    assert set(first).isdisjoint(second)
    both = again([*first, *second], tmp_path).sortby("ra")
    np.testing.assert_array_equal(both["target_id"], ds["target_id"])


def test_a_target_that_is_there_twice_is_in_two_coadds(tmp_path: Path) -> None:
    ds = survey()
    ds["target_id"][:] = ["7", "7", "8"]
    paths = desi.build().write(ds, str(tmp_path), "desi")
    assert len(paths) == 2
    actual = again(paths, tmp_path).sortby("ra")
    np.testing.assert_allclose(actual["z"], ds["z"])
    assert len({*actual["observation"].to_numpy()}) == 3


def test_exposures_of_a_target_are_in_one_file(tmp_path: Path) -> None:
    ds = survey()
    ds["target_id"][:], ds["z"][:] = "7", 0.5
    paths = desi.build().write(ds, str(tmp_path), "desi-exposure")
    assert len(paths) == 1
    actual = again(paths, tmp_path, "desi-exposure")
    assert len({*actual["observation"].to_numpy()}) == 3
    assert {*actual["target_id"].to_numpy()} == {"7"}
    np.testing.assert_allclose(actual["flux"], ds["flux"], rtol=1e-6)


def test_a_row_without_redshift_comes_back_without(tmp_path: Path) -> None:
    ds = survey()
    ds["z"][1] = np.nan
    actual = again(desi.build().write(ds, str(tmp_path), "desi"), tmp_path)
    assert actual["z"].isnull().to_numpy().tolist() == [False, True, False]
    assert actual["zwarn"].to_numpy().tolist() == [4, NO_REDSHIFT, 4]


def test_targets_named_otherwise_get_a_number_of_their_own(tmp_path: Path) -> None:
    ds = survey()
    ds["target_id"][:] = ["10.00000+33.00000", str(1 << 63), "10.00200+33.00000"]
    first = again(desi.build().write(ds, str(tmp_path), "desi"), tmp_path)["target_id"].to_numpy()
    assert len({*first}) == 3
    assert all(0 < int(name) < 1 << 63 for name in first)
    one = desi.build().write(ds.isel(spectrum=[2]), str(tmp_path / "one"), "desi")
    assert again(one, tmp_path / "one")["target_id"][0] == first[2]


def test_a_target_without_a_name_is_that_of_its_place(tmp_path: Path) -> None:
    ds = survey()
    ds["target_id"][:] = ["", "", "10.00000+33.00000"]
    ds["ra"][:] = [10, 10, 10.001]
    actual = again(desi.build().write(ds, str(tmp_path), "desi"), tmp_path)["target_id"]
    assert len({*actual.to_numpy()}) == 1


@pytest.mark.parametrize("config", ["desi", "desi-exposure"])
def test_names_of_observations_are_kept(tmp_path: Path, config: str) -> None:
    ds = survey()
    ds["observation"][:] = ["2000-52000-0001", "", "a longer name than the others"]
    actual = again(desi.build().write(ds, str(tmp_path), config), tmp_path, config)["observation"]
    assert [*actual.to_numpy()[[0, 2]]] == ["2000-52000-0001", "a longer name than the others"]
    assert str(ds["target_id"][1].item()) in str(actual[1].item())


def test_a_row_without_position_is_not_written(tmp_path: Path) -> None:
    ds = survey()
    ds["dec"][2] = np.nan
    with pytest.raises(ValueError, match=r"rows 2 have no position; DESI files are named by it"):
        desi.build().write(ds, str(tmp_path), "desi")
