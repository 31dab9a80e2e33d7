"""Single exposures of full spec files, on the grid of the coadd."""

import gzip
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from storage.reader import Source
from storage.readers import sdss
from storage.schema import ObjectType, Reason, Status
from tests.storage.sdss_mock import LINE, cameras, load, mock, one

SDSS = sdss.build()
CONFIG = "sdss-exposure"
NUMBERS = {"00000011": 1, "00000012": 2}


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = Path(SDSS.write(mock(), str(tmp_path), "sdss")[0])
    cameras(path, NUMBERS, **{"TAI-BEG": 86400 * 51602.25, "EXPTIME": 864.0})
    return path


def real(survey_data: Path) -> list[tuple[xr.Dataset, xr.Dataset]]:
    """Exposures and coadd of each real file."""
    root = survey_data / "sdss_exposures"
    sources = SDSS.find(str(root), CONFIG)
    return [
        (SDSS.read(source, str(root), CONFIG), one(Path(source.files[0]))) for source in sources
    ]


def test_an_exposure_is_a_row(full: Path) -> None:
    ds, coadd = load(full.parent, CONFIG), one(full)
    assert list(ds["observation"].values) == [f"0266-51602-0001-{n}" for n in NUMBERS]
    assert list(ds["source_row"].values) == [0, 1]
    assert (ds["status"] == Status.DONE).all(), ds["reason"].values
    np.testing.assert_allclose(ds["mjd"], 51602.255)
    for name in ("ra", "dec", "z", "target_id", "class", "object_type", "source", "digest"):
        assert (ds[name] == coadd[name]).all(), name
    np.testing.assert_array_equal(ds["model"][0], coadd["model"])


def test_a_line_keeps_its_flux_and_place(full: Path) -> None:
    """The line lies where blue and red overlap; its error is that of the pixels below it."""
    ds = load(full.parent, CONFIG)
    wavelength = ds["wavelength"].to_numpy()
    near = np.abs(wavelength - 6000) < 40
    excess = (ds["flux"].to_numpy() - 10)[:, near] * np.gradient(wavelength)[near]
    # Pixels of 1.4 A with 0.5 of noise, of two cameras: 0.5 * sqrt(80 * 1.4 / 2) = 3.7.
    np.testing.assert_allclose(excess.sum(axis=1), LINE, atol=4 * 3.7)
    centre = (excess * wavelength[near]).sum(axis=1) / excess.sum(axis=1)
    np.testing.assert_allclose(centre, 6000, atol=0.5)


def test_errors_are_those_of_single_pixels(full: Path) -> None:
    ds = load(full.parent, CONFIG)
    a, b = (ds.isel(spectrum=row) for row in (0, 1))
    good = (a["ivar"] > 0).to_numpy()
    difference = (a["flux"] - b["flux"]) * np.sqrt(1 / (1 / a["ivar"] + 1 / b["ivar"]))
    assert difference.to_numpy()[good].std() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(a["lsf"].to_numpy()[good], 1.1, rtol=1e-3)
    # Both cameras see these pixels, and each alone the ones beside.
    both, alone = (a["ivar"].to_numpy()[i : i + 40].mean() for i in (2200, 1900))
    assert both / alone == pytest.approx(2, abs=0.3)


def test_masked_pixels_do_not_bleed(full: Path) -> None:
    expected = load(full.parent, CONFIG).isel(spectrum=0)
    with fits.open(full, mode="update", memmap=False) as hdus:
        data = hdus["B1-00000011-00000009-00000010"].data
        data["flux"][1000], data["mask"][1000] = 1e20, 1 << 25
        data["flux"][500] = np.nan
    row = load(full.parent, CONFIG).isel(spectrum=0)
    assert float(row["flux"].max()) == pytest.approx(float(expected["flux"].max()))
    lost = ((row["ivar"] == 0) & (expected["ivar"] > 0)).to_numpy()
    assert 1 <= lost.sum() <= 6
    assert (row["mask"].to_numpy()[lost] & (1 << 25)).any()
    np.testing.assert_array_equal(row["flux"][~lost][:800], expected["flux"][~lost][:800])


def test_one_camera_is_enough(full: Path) -> None:
    with fits.open(full, memmap=False) as hdus:
        del hdus["B1-00000011-00000009-00000010"]
        hdus.writeto(full, overwrite=True)
    ds = load(full.parent, CONFIG)
    assert (ds["status"] == Status.DONE).all()
    assert not ds["ivar"][0, :2000].any()


def test_a_bad_exposure_leaves_the_others(full: Path) -> None:
    with fits.open(full, mode="update", memmap=False) as hdus:
        hdus["R1-00000011-00000009-00000010"].data["ivar"][5] = -1
    ds = load(full.parent, CONFIG)
    assert list(ds["status"].values) == [Status.QUARANTINED, Status.DONE]
    assert ds["reason_code"][0] == Reason.NEGATIVE_IVAR
    assert "exposure 0: ivar is negative in 1 pixels" in ds["reason"].values[0]
    assert not ds["flux"][0].any()


def test_an_exposure_without_data_is_quarantined(full: Path) -> None:
    with fits.open(full, mode="update", memmap=False) as hdus:
        for hdu in hdus[4:6]:
            hdu.data["ivar"][:] = 0
    assert list(load(full.parent, CONFIG)["reason_code"].values) == [Reason.NO_DATA, Reason.NONE]


def test_wavelengths_out_of_order_are_quarantined(full: Path) -> None:
    with fits.open(full, mode="update", memmap=False) as hdus:
        hdus[4].data["loglam"][7] = hdus[4].data["loglam"][8]
    assert load(full.parent, CONFIG)["reason_code"].values[0] == Reason.BAD_GRID


@pytest.mark.parametrize("pixel", [0, 1000, -1])
@pytest.mark.parametrize("loglam", [0.0, -1.0, 1e30, np.nan])
def test_one_absurd_wavelength_is_quarantined(full: Path, pixel: int, loglam: float) -> None:
    with fits.open(full, mode="update", memmap=False) as hdus:
        hdus[4].data["loglam"][pixel] = loglam
    ds = load(full.parent, CONFIG)
    assert ds["reason_code"].values.tolist() == [Reason.BAD_GRID, Reason.NONE]
    assert "wavelengths are not in order" in ds["reason"].values[0]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("model", 1e25, "model is beyond 1e+10"), ("loglam", 0.0, "off the grid by up to")],
)
def test_a_damaged_coadd_refuses_its_exposures(
    full: Path, column: str, value: float, words: str
) -> None:
    with fits.open(full, mode="update", memmap=False) as hdus:
        hdus["COADD"].data[column][77] = value
    ds = load(full.parent, CONFIG)
    assert (ds["status"] == Status.QUARANTINED).all()
    assert words in ds["reason"].values[0]


def test_a_coadd_beyond_the_grid_leaves_exposures_without_a_model(full: Path) -> None:
    with fits.open(full, mode="update", memmap=False) as hdus:
        hdus["COADD"].data["loglam"][:] -= np.float32(0.1)
    ds = load(full.parent, CONFIG)
    assert (ds["status"] == Status.DONE).all()
    assert not ds["model"].any()


def test_rows_of_several_files_are_their_first_exposures(full: Path) -> None:
    other = full.with_name("spec-0266-51602-0002.fits")
    other.write_bytes(full.read_bytes())
    ds = SDSS.read(Source(files=(str(full), str(other)), rows=2), str(full.parent), CONFIG)
    assert [str(name)[-8:] for name in ds["observation"].values] == ["00000011"] * 2
    one_of_two = Source(files=(str(full),), rows=2).part(1, 2)
    ds = SDSS.read(one_of_two, str(full.parent), CONFIG)
    assert ds["observation"].values[0].endswith("-00000012")
    assert ds["source_row"] == 1


def test_an_exposure_that_is_gone_says_so(full: Path) -> None:
    ds = SDSS.read(Source(files=(str(full),), rows=3), str(full.parent), CONFIG)
    assert ds["reason_code"].values[2] == Reason.GONE
    assert "there are 2 exposures now" in ds["reason"].values[2]


def test_lite_files_give_no_rows_and_alone_are_refused(full: Path, tmp_path: Path) -> None:
    lite = tmp_path / "lite"
    SDSS.write(mock(), str(lite), "sdss")
    assert [source.rows for source in SDSS.find(str(tmp_path), CONFIG)] == [2]
    with pytest.raises(FileNotFoundError, match=r"none of its 1 spec files .* the full files"):
        list(SDSS.find(str(lite), CONFIG))


@pytest.mark.parametrize("size", [0, 5000, 130_000, 200_000])
def test_a_file_cut_short_keeps_a_row(full: Path, size: int) -> None:
    full.write_bytes(full.read_bytes()[:size])
    ds = load(full.parent, CONFIG)
    assert list(ds["reason_code"].values) == [Reason.UNREADABLE]
    assert ds["observation"] == "0266-51602-0001"


@pytest.mark.parametrize("number", [1, 4])
def test_a_file_whose_tables_are_lost_keeps_a_row(full: Path, number: int) -> None:
    with fits.open(full) as hdus:
        at = hdus[number]._header_offset
    content = bytearray(full.read_bytes())
    content[at : at + 80] = b" " * 80
    full.write_bytes(content)
    ds = load(full.parent, CONFIG)
    assert list(ds["reason_code"].values) == [Reason.UNREADABLE]
    assert f"HDU {number - 1} is followed by bytes that are no extension" in ds["reason"].item()


def test_a_packed_file_has_the_same_exposures(full: Path) -> None:
    expected = load(full.parent, CONFIG)
    full.with_suffix(".fits.gz").write_bytes(gzip.compress(full.read_bytes()))
    full.unlink()
    actual = load(full.parent, CONFIG)
    np.testing.assert_array_equal(actual["flux"], expected["flux"])


def test_one_table_an_exposure_is_read_too(full: Path) -> None:
    """SDSS-V joins the cameras itself."""
    with fits.open(full, memmap=False) as hdus:
        for number, hdu in enumerate(hdus[4:]):
            hdu.name = f"MJD_EXP_05123-{number:02d}"
            hdu.columns["mask"].name = "and_mask"
        hdus.writeto(full, overwrite=True)
    ds = load(full.parent, CONFIG)
    assert (ds["status"] == Status.DONE).all(), ds["reason"].values
    assert ds["observation"].values[3] == "0266-51602-0001-05123-03"


def test_sky_stays_sky_in_its_exposures(tmp_path: Path) -> None:
    ds = mock()
    ds["object_type"][:], ds["z"][:] = ObjectType.SKY, -0.5
    (path,) = SDSS.write(ds, str(tmp_path), "sdss")
    cameras(Path(path), NUMBERS)
    ds = load(tmp_path, CONFIG)
    assert (ds["status"] == Status.DONE).all()
    assert (ds["object_type"] == ObjectType.SKY).all()
    # Without the times of the exposure there is the night of the coadd.
    assert (ds["mjd"] == 51602).all()


def test_exposures_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"exposures are only read"):
        SDSS.write(mock(), str(tmp_path), CONFIG)


def test_real_exposures_are_counted_as_their_headers_say(survey_data: Path) -> None:
    for ds, _ in real(survey_data):
        header = fits.getheader(survey_data / "sdss_exposures" / str(ds["source"].values[0]))
        stated = {value.split("-")[1] for key, value in header.items() if key.startswith("EXPID")}
        assert [str(name)[-8:] for name in ds["observation"].values] == sorted(stated)
        assert (ds["status"] == Status.DONE).all()


def test_the_mean_of_real_exposures_is_the_coadd(survey_data: Path) -> None:
    for ds, coadd in real(survey_data):
        ivar = ds["ivar"].sum("spectrum")
        good = ((ivar > 0) & (coadd["ivar"] > 0)).to_numpy()
        mean = ((ds["flux"] * ds["ivar"]).sum("spectrum") / ivar).to_numpy()
        assert np.median(mean[good] / coadd["flux"][good]) == pytest.approx(1, abs=0.01)
        assert good.sum() > 0.95 * (coadd["ivar"] > 0).sum()
        scatter = np.abs(mean - coadd["flux"].to_numpy()) * np.sqrt(coadd["ivar"].to_numpy())
        assert np.median(scatter[good]) < 0.6


def test_real_exposures_differ_by_their_noise(survey_data: Path) -> None:
    """Within what SDSS overstates (sky: 0.88) and plate 390 varies between nights."""
    for ds, _ in real(survey_data):
        flux, ivar = (ds[name].to_numpy().astype(float) for name in ("flux", "ivar"))
        for a, b in combinations(range(len(flux)), 2):
            good = (ivar[a] > 0) & (ivar[b] > 0)
            each = (flux[a] - flux[b])[good] / np.sqrt(1 / ivar[a][good] + 1 / ivar[b][good])
            robust = 1.4826 * np.median(np.abs(each - np.median(each)))
            assert 0.8 < robust < 1.15, ds["observation"].values[[a, b]]


def test_a_camera_that_is_there_twice_is_refused(full: Path) -> None:
    with fits.open(full, memmap=False) as hdus:
        name = hdus[4].name
        hdus.append(hdus[4].copy())
        hdus.writeto(full, overwrite=True)
    ds = load(full.parent, CONFIG)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert f"two extensions are called {name}" in ds["reason"].item(0)
