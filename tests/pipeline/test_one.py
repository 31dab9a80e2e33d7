"""One: what comes out of a file is what the model says of it, and what is to be known of it."""

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from pipeline import index
from pipeline.cli import OK, QUARANTINED
from pipeline.one import Asked, denoise_files
from pipeline.one_result import Made, said
from storage.border import NO_REDSHIFT
from storage.readers import desi, sdss
from storage.schema import ObjectType, Status
from tests.pipeline import one_mock
from tests.pipeline.one_mock import DESI, NAME, Command, sdss_file, spectra
from tests.pipeline.scene import POOR
from training import checkpoint
from training.frames import named


@pytest.fixture
def denoise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return one_mock.command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_mock.model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One file, denoised."""
    folder = tmp_path_factory.mktemp("made")
    path = sdss_file(folder / "in")
    (found,) = denoise_files(Asked(files=(str(path),), model=str(model), out=str(folder)))
    return found


def table(folder: Path, name: str = NAME) -> Table:
    return Table.read(folder / f"{name}.denoised.fits", hdu="SPECTRA")


def test_a_file_becomes_what_the_model_says_of_it(model: Path, made: Made) -> None:
    ds = spectra()
    assert made.failed == 0
    (row,) = Table.read(made.paths[0], hdu="SPECTRA")
    given = (ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv"))
    door = checkpoint.load(model).denoise(sdss.GRID.wavelength, *given)
    for name in ("flux", "sigma"):
        np.testing.assert_allclose(row[name], door[name][0], rtol=1e-4, atol=1e-5)
    wave = Table.read(made.paths[0], hdu="WAVELENGTH")
    np.testing.assert_array_equal(wave["wavelength"], named("fs").grid.wavelength)
    assert wave["wavelength"].unit == "Angstrom"
    assert row["status"] == Status.DONE
    assert 0 < row["misfit"] < 2


def test_the_input_stands_beside_it_on_the_same_pixels(made: Made) -> None:
    ds = spectra()
    (row,) = Table.read(made.paths[0], hdu="SPECTRA")
    values = (ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv"))
    batch = named("fs").on(sdss.GRID).to(*values)
    scale, good = batch.scale.numpy()[:, None], batch.weight.numpy() > 0
    np.testing.assert_allclose(row["input"], (batch.x.numpy() * scale * good)[0], rtol=1e-5)
    np.testing.assert_allclose(row["weight"], (batch.weight.numpy() / scale**2)[0], rtol=1e-5)


def test_indices_are_measured_on_both_with_errors(made: Made) -> None:
    (row,) = found = Table.read(made.paths[0], hdu="SPECTRA")
    axis = named("fs").grid.wavelength
    names = ("Dn4000", "HdeltaF", "Mgb")
    own = index.measure(axis, np.array([row["flux"]]), None, names).value[0]
    raw = index.measure(axis, np.array([row["input"]]), np.array([row["weight"]]), names)
    for place, name in enumerate(names):
        assert row[f"denoised.{name}"] == pytest.approx(float(own[place]), rel=1e-4, abs=1e-3)
        assert row[f"raw@frame.{name}"] == pytest.approx(float(raw.value[0, place]), rel=1e-4)
        assert row[f"raw@frame.{name}_error"] == pytest.approx(float(raw.error[0, place]), rel=1e-4)
        assert 0 < row[f"denoised.{name}_error"] < row[f"raw@frame.{name}_error"]
    assert found["denoised.Mgb"].unit == "Angstrom"


def test_the_header_says_where_it_is_from(model: Path, made: Made) -> None:
    header = fits.getheader(made.paths[0], "SPECTRA")
    found = checkpoint.load(model)
    assert (header["MODEL"], header["DIGEST"]) == (model.name, found.digest)
    assert (header["VERDICT"], header["FRAME"]) == ("passed", found.frame.label)
    assert (header["AXIS"], header["MEDIUM"]) == ("rest", "vacuum")
    assert header["CODE"].startswith("0.")
    assert "torch=" in header["PACKAGES"]
    assert header["FLAGBITS"] == "1 extrapolated, 2 above_ceiling, 4 misfit"
    assert "2 too_much_masked" in header["IDXBITS"]
    assert header["ERRKINDS"].startswith("0 none, 1 formal, 2 draws")
    assert header["SOURCE"] == str(made.known.path)


def test_what_is_to_be_known_of_a_spectrum_is_said(made: Made) -> None:
    first, spectrum, *indices = said(made)
    assert first.endswith(f"1 of 1 spectra, reader sdss; {made.chosen.name}, verdict passed")
    assert re.fullmatch(
        r"  0266-51602-0001: z 0.05, S/N\(g\) \d\d\.\d, misfit [01]\.\d\d: no flag", spectrum
    )
    value = r"[12]\.\d{3} \+- 0\.\d{3}"
    assert re.fullmatch(rf"    Dn4000: denoised {value} \(draws\), raw {value}", indices[0])
    assert indices[3].startswith("  1 of 1 denoised, 0 of them flagged; ")
    assert indices[4:] == [f"  -> {path}" for path in made.paths]


def test_a_picture_is_drawn_unless_it_is_not_wanted(
    denoise: Command, model: Path, made: Made, tmp_path: Path
) -> None:
    image = matplotlib.image.imread(made.paths[1])
    assert image.shape[1] == 1440
    assert image[..., :3].std() > 0.05
    denoise(made.known.path, "--model", model, "--out", tmp_path, "--no-figure")
    assert [file.name for file in tmp_path.iterdir()] == [f"{NAME}.denoised.fits"]


def test_what_a_model_must_not_be_trusted_with_is_flagged_with_the_reason(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    path = sdss_file(tmp_path / "in", z=0.15)
    answer = denoise(path, "--model", model, "--out", tmp_path, "--no-figure")
    assert answer.status == OK
    assert "extrapolated, misfit (z 0.15 outside 0.02-0.13)" in answer.out
    (row,) = table(tmp_path)
    assert row["flag"] == 1 | 4
    skip = ("--set", "denoise.outside=skip")
    left = denoise(path, "--model", model, "--out", tmp_path / "skip", *skip)
    assert left.status == QUARANTINED
    assert "not denoised: z 0.15 outside 0.02-0.13" in left.out


def test_a_file_of_many_gives_a_row_each_and_a_sheet(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    ds = spectra(5, desi.GRID)
    ds["object_type"][3] = ObjectType.SKY
    (path,) = DESI.write(ds, str(tmp_path / "in"), "desi")
    stem = Path(path).stem
    answer = denoise(path, "--model", model, "--out", tmp_path)
    assert answer.status == OK, answer.err
    assert "not denoised: a sky fibre" in answer.out
    assert "4 of 5 denoised, 0 of them flagged" in answer.out
    found = table(tmp_path, stem)
    # The order of the file: DESI's own is by target.
    np.testing.assert_array_equal(found["source_row"], np.arange(5))
    np.testing.assert_allclose(found["z"], ds["z"], rtol=1e-6)
    assert found["status"].tolist() == [1, 1, 1, Status.NOT_APPLICABLE, 1]
    assert np.ma.is_masked(found["denoised.Dn4000"][3])
    assert not found["flux"][3].any()
    assert (tmp_path / f"{stem}.denoised.png").stat().st_size > 20_000
    some = denoise(
        path, "--model", model, "--out", tmp_path / "some", "--rows", "4,0:2", "--no-figure"
    )
    assert some.status == OK
    part = table(tmp_path / "some", stem)
    assert part["source_row"].tolist() == [0, 1, 4]
    np.testing.assert_allclose(part["flux"], found["flux"][[0, 1, 4]], rtol=1e-5, atol=1e-6)


def test_a_row_that_cannot_be_read_is_status_1_and_keeps_its_place(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    ds = spectra(3, desi.GRID)
    ds["ivar"][1], ds["flux"][1] = 0, 0
    (path,) = DESI.write(ds, str(tmp_path / "in"), "desi")
    answer = denoise(path, "--model", model, "--out", tmp_path, "--no-figure")
    assert answer.status == QUARANTINED
    assert "row 1: no pixel has ivar > 0" in answer.out
    found = table(tmp_path, Path(path).stem)
    assert found["status"].tolist() == [Status.DONE, Status.QUARANTINED, Status.DONE]
    assert "no pixel has ivar > 0" in found["reason"][1]


def test_without_a_redshift_nothing_is_denoised_until_one_is_given(
    denoise: Command, model: Path, tmp_path: Path
) -> None:
    ds = spectra(1, desi.GRID)
    ds["z"][:], ds["zwarn"][:] = np.nan, NO_REDSHIFT
    (path,) = DESI.write(ds, str(tmp_path / "in"), "desi")
    answer = denoise(path, "--model", model, "--out", tmp_path, "--no-figure")
    assert answer.status == QUARANTINED
    assert "not denoised: no redshift: give it with --z" in answer.out
    assert [file.name for file in tmp_path.iterdir()] == ["in"]
    again = denoise(path, "--model", model, "--out", tmp_path, "--z", "0.05", "--no-figure")
    assert again.status == OK, again.out
    (row,) = found = table(tmp_path, Path(path).stem)
    assert (row["z"], row["zwarn"], row["flag"]) == (0.05, 0, 0)
    assert found.meta["ZGIVEN"] == "0.05"


def test_a_star_is_denoised_where_it_was_observed(denoise: Command, tmp_path: Path) -> None:
    stars = one_mock.model(tmp_path, frame=named("star"))
    path = sdss_file(tmp_path / "in", z=0.0, **{"class": "STAR"})
    out = tmp_path / "out"
    answer = denoise(path, "--model", stars, "--out", out, "--no-figure")
    assert answer.status == OK, answer.err
    # The footprint of this checkpoint is of galaxies.
    assert "class STAR not of GALAXY" in answer.out
    wave = Table.read(out / f"{NAME}.denoised.fits", hdu="WAVELENGTH")["wavelength"]
    assert (round(wave[0]), round(wave[-1])) == (7100, 8850)
    (row,) = table(out)
    assert np.mean(row["flux"]) == pytest.approx(1.3 * one_mock.LEVEL, rel=0.1)
    assert np.ma.is_masked(row["denoised.Dn4000"])
    assert fits.getheader(out / f"{NAME}.denoised.fits", "SPECTRA")["AXIS"] == "observed"


def test_a_model_that_failed_says_so_in_its_product(denoise: Command, tmp_path: Path) -> None:
    poor = one_mock.model(tmp_path, POOR)
    path = sdss_file(tmp_path / "in")
    answer = denoise(path, "--model", poor, "--out", tmp_path, "--unproven", "--no-figure")
    assert answer.status == OK
    assert f"{poor.name}, verdict failed: " in answer.out
    assert table(tmp_path).meta["VERDICT"].startswith("failed: ")
