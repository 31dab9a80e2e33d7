"""Grids of the user's, in the formats that BOSZ, PHOENIX and tables come in."""

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage.grid import Float, Grid, vacuum_to_air
from storage.mocks.star import build
from storage.simulation.stellar_bosz import bosz
from storage.simulation.stellar_files import onto
from storage.simulation.stellar_night import FRAME, PAPER
from storage.simulation.stellar_phoenix import WAVE, phoenix
from storage.simulation.stellar_table import table

WAVELENGTH = np.geomspace(6900.0, 9100.0, 7001)
AXIS = Grid(kind="log", start=np.log10(8000.0), step=1e-5, size=3000)
TEFFS, LOGGS = (4000.0, 4250.0), (4.0, 4.5)


def model(teff: float, logg: float, wavelength: Float = WAVELENGTH) -> Float:
    """A slope and a line at 8544.44 A (vacuum) that deepens with log g."""
    line = 0.1 * logg * np.exp(-0.5 * ((wavelength - 8544.44) / 4.0) ** 2)
    return 1e6 * (teff / 4000.0) ** 4 * (wavelength / 8000.0) ** -2 * (1 - line)


def write_text(path: Path, *columns: Float) -> None:
    text = "".join(" ".join(f"{v:.8e}" for v in row) + "\n" for row in zip(*columns, strict=True))
    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    with opener(path, "wt") as file:  # type: ignore[operator]
        file.write(text)


def bosz_2017(folder: Path) -> Path:
    for teff, logg in ((t, g) for t in TEFFS for g in LOGGS):
        name = f"amm03cp00op00t{teff:.0f}g{logg * 10:02.0f}v20modrt0b50000rs"
        one = model(teff, logg)
        if teff == 4000.0:
            columns = [
                fits.Column("Wavelength", "D", unit="ANGSTROMS", array=WAVELENGTH),
                fits.Column("SpecificIntensity", "D", unit="erg/s/cm2/A", array=one),
                fits.Column("Continuum", "D", array=one),
            ]
            fits.BinTableHDU.from_columns(columns).writeto(folder / f"{name}.fits")
        else:
            write_text(folder / f"{name}.asc.bz2", WAVELENGTH, one, one)
    return folder


def bosz_2024(folder: Path) -> Path:
    write_text(folder / "bosz2024_wave_r10000.txt", WAVELENGTH)
    (folder / "m-0.25").mkdir()
    for teff in TEFFS:
        for logg in LOGGS:
            name = f"bosz2024_mp_t{teff:.0f}_g+{logg:.1f}_m-0.25_a+0.00_c+0.00_v2_r10000_resam"
            one = model(teff, logg)
            write_text(folder / "m-0.25" / f"{name}.txt.gz", one, one)
    return folder


def phoenix_2013(folder: Path) -> Path:
    wave = fits.PrimaryHDU(WAVELENGTH)
    wave.header["UNIT"] = "Angstrom"
    wave.writeto(folder / WAVE)
    (folder / "Z-0.5").mkdir()
    for teff in TEFFS:
        for logg in LOGGS:
            name = f"lte{teff:05.0f}-{logg:.2f}-0.5.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits"
            hdu = fits.PrimaryHDU((model(teff, logg) * 1e8).astype(np.float32))
            hdu.header["BUNIT"] = "erg/s/cm^2/cm"
            hdu.writeto(folder / "Z-0.5" / name)
    return folder


def a_table(path: Path, medium: str = "air", unit: str = "nm", flux: str = "W m-2 um-1") -> Path:
    rows = [(t, g) for t in TEFFS for g in LOGGS]
    axis = (vacuum_to_air(WAVELENGTH) if medium == "air" else WAVELENGTH) / 10
    size = WAVELENGTH.size
    # 1 erg s-1 cm-2 A-1 is 10 W m-2 um-1.
    columns = [
        fits.Column("teff", "D", array=[t for t, _ in rows]),
        fits.Column("logg", "D", array=[g for _, g in rows]),
        fits.Column("feh", "D", array=[-0.5] * 4),
        fits.Column("alpha_m", "D", array=[0.0] * 4),
        fits.Column("wavelength", f"{size}D", unit=unit, array=np.tile(axis, (4, 1))),
        fits.Column("flux", f"{size}D", unit=flux, array=[10 * model(*row) for row in rows]),
    ]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header["MEDIUM"] = medium
    hdu.writeto(path)
    return path


GRIDS = {
    "bosz-2017": lambda path: bosz(str(bosz_2017(path))),
    "bosz-2024": lambda path: bosz(str(bosz_2024(path))),
    "phoenix": lambda path: phoenix(str(phoenix_2013(path))),
    "table-air": lambda path: table(str(a_table(path / "models.fits"))),
    "table-vacuum": lambda path: table(str(a_table(path / "models.fits", "vacuum"))),
}


@pytest.mark.parametrize("name", GRIDS)
def test_models_come_out_of_their_files_in_vacuum_per_angstrom(name: str, tmp_path: Path) -> None:
    grid = GRIDS[name](tmp_path)

    flux = grid.spectra(np.arange(4), AXIS)

    assert [a.tolist() for a in grid.axes[:2]] == [list(TEFFS), list(LOGGS)]
    assert grid.there.all()
    for row, (teff, logg) in zip(flux, ((t, g) for t in TEFFS for g in LOGGS), strict=True):
        np.testing.assert_allclose(row, model(teff, logg, AXIS.wavelength), rtol=1e-3)


def test_metallicity_and_alpha_are_read_from_names(tmp_path: Path) -> None:
    for code in ("amm13cp00om03", "amp08cp00op05", "amm25cp00op03", "amm25cm03op03"):
        (tmp_path / f"{code}t4000g05v20modrt0b500rs.fits").touch()

    grid = bosz(str(tmp_path))

    # The last has another carbon abundance.
    assert [a.tolist() for a in grid.axes] == [
        [4000.0], [0.5], [-2.5, -1.25, 0.75], [-0.25, 0.25, 0.5],
    ]  # fmt: skip
    assert grid.there.sum() == 3


def test_phoenix_names_have_dashes_before_log_g(tmp_path: Path) -> None:
    last = "PHOENIX-ACES-AGSS-COND-2011-HiRes.fits"
    for name in ("lte04000-4.50-0.0", "lte04000+0.50+0.5", "lte04000-4.50-0.5.Alpha=+0.20"):
        (tmp_path / f"{name}.{last}").touch()

    grid = phoenix(str(tmp_path))

    assert [a.tolist() for a in grid.axes[1:]] == [[-0.5, 4.5], [-0.5, 0.0, 0.5], [0.0, 0.2]]


def test_a_rebinned_spectrum_keeps_its_integral() -> None:
    rng = np.random.default_rng(1)
    wavelength = np.sort(rng.uniform(7900.0, 8700.0, 3000))
    flux = rng.random(3000)

    mean = onto(AXIS, wavelength, flux)

    low, high = AXIS.edges[[0, -1]]
    dense = np.linspace(low, high, 400_001)
    direct = np.trapezoid(np.interp(dense, wavelength, flux), dense)
    assert (mean * AXIS.widths).sum() == pytest.approx(direct, rel=1e-6)


def test_a_missing_model_is_a_hole(tmp_path: Path) -> None:
    folder = phoenix_2013(tmp_path)
    next(folder.glob("Z-0.5/lte04250-4.50*")).unlink()
    grid = phoenix(str(folder))

    assert grid.there.ravel().tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match=r"no model with teff 4250, logg 4.5, feh -0.5, alpha_m 0"):
        grid.spectra(np.array([3]), AXIS)


def test_a_mock_of_a_grid_with_a_hole_goes_around_it(tmp_path: Path) -> None:
    folder = phoenix_2013(tmp_path)
    next(folder.glob("Z-0.5/lte04250-4.50*")).unlink()
    options = {**PAPER, "physics": "phoenix", "models": str(folder)}

    truth = build(**options).truth(100, FRAME, seed=1, stream="survey")

    teff, logg = truth["teff"].to_numpy(), truth["logg"].to_numpy()
    assert (((logg == 4.0) & (teff <= 4250.0)) | ((teff == 4000.0) & (logg <= 4.5))).all()
    assert truth["flux"].attrs["physics"] == "phoenix"
    assert truth["teff"].attrs["physics"] == "phoenix"


@pytest.mark.parametrize("name", ["fits", "bz2", "gz", "phoenix", "table"])
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    make, pattern, read = {
        "fits": (bosz_2017, "*g40*.fits", bosz),
        "bz2": (bosz_2017, "*g40*.bz2", bosz),
        "gz": (bosz_2024, "m-0.25/*g+4.0*.gz", bosz),
        "phoenix": (phoenix_2013, "Z-0.5/*-4.00*.fits", phoenix),
        "table": (lambda path: a_table(path / "models.fits").parent, "models.fits", table),
    }[name]
    folder = make(tmp_path)
    for path in folder.glob(pattern):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    where = folder / "models.fits" if name == "table" else folder

    with pytest.raises(ValueError, match=r"truncated"):
        read(str(where)).spectra(np.array([0, 2]), AXIS)


def test_a_text_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    folder = bosz_2024(tmp_path)
    one = next(folder.glob("m-0.25/*t4000_g+4.0*"))
    write_text(one, model(4000.0, 4.0)[:5000], model(4000.0, 4.0)[:5000])

    with pytest.raises(
        ValueError, match=r"5000 fluxes for 7001 wavelengths; the file is truncated"
    ):
        bosz(str(folder)).spectra(np.array([0]), AXIS)


def test_another_unit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "phoenix").mkdir()
    folder = phoenix_2013(tmp_path / "phoenix")
    with fits.open(next(folder.glob("Z-0.5/*4000-4.00*")), mode="update") as hdus:
        hdus[0].header["BUNIT"] = "W/m^2/m"
    with pytest.raises(ValueError, match=r"BUNIT is 'W/m\^2/m', expected 'erg/s/cm\^2/cm'"):
        phoenix(str(folder)).spectra(np.array([0]), AXIS)

    (tmp_path / "bosz").mkdir()
    folder = bosz_2017(tmp_path / "bosz")
    with fits.open(next(folder.glob("*t4000g40*")), mode="update") as hdus:
        hdus[1].header["TUNIT1"] = "um"
    with pytest.raises(ValueError, match=r"wavelength is in UM, expected Angstrom"):
        bosz(str(folder)).spectra(np.array([0]), AXIS)


def test_wavelengths_in_another_unit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bosz").mkdir()
    folder = bosz_2024(tmp_path / "bosz")
    write_text(folder / "bosz2024_wave_r10000.txt", WAVELENGTH / 1e4)
    with pytest.raises(ValueError, match=r"wavelengths 0.69 to 0.91; expected A"):
        bosz(str(folder)).spectra(np.array([0]), AXIS)

    (tmp_path / "phoenix").mkdir()
    folder = phoenix_2013(tmp_path / "phoenix")
    fits.PrimaryHDU(WAVELENGTH / 1e4).writeto(folder / WAVE, overwrite=True)
    with pytest.raises(ValueError, match=r"starts at 0.69 Angstrom; expected A in vacuum"):
        phoenix(str(folder)).spectra(np.array([0]), AXIS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "s"}, r"unit of wavelength is 's'; expected one that converts to Angstrom"),
        ({"unit": ""}, r"unit of wavelength is ''"),
        ({"flux": "Jy"}, r"unit of flux is 'Jy'; expected one that converts to erg"),
        ({"medium": "water"}, r"MEDIUM is 'water'; put 'air' or 'vacuum'"),
    ],
)
def test_a_table_says_its_units_and_medium(
    options: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        table(str(a_table(tmp_path / "models.fits", **options)))


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.fits"
    fits.BinTableHDU.from_columns([fits.Column("teff", "D", array=[1.0])]).writeto(path)

    with pytest.raises(ValueError, match=r"the table lacks logg, feh, alpha_m, wavelength, flux"):
        table(str(path))


def test_two_files_of_one_model_are_refused(tmp_path: Path) -> None:
    for resolution in (500, 50000):
        (tmp_path / f"amp00cp00op00t4000g05v20modrt0b{resolution}rs.fits").touch()

    with pytest.raises(ValueError, match=r"are the same model, teff 4000, .*keep one resolution"):
        bosz(str(tmp_path))


def test_wavelengths_of_all_must_be_there(tmp_path: Path) -> None:
    folder = phoenix_2013(tmp_path)
    (folder / WAVE).unlink()
    with pytest.raises(ValueError, match=r"WAVE_PHOENIX.* is not beside it or above it"):
        phoenix(str(folder)).spectra(np.array([0]), AXIS)


def test_models_that_end_within_the_grid_are_refused(tmp_path: Path) -> None:
    sdss = Grid(kind="log", start=3.55, step=1e-4, size=4700)
    mock = build(physics="phoenix", models=str(phoenix_2013(tmp_path)))

    with pytest.raises(ValueError, match=r"6900-9100 A; the mock needs 3\d+-10\d+ A on this grid"):
        mock.truth(1, sdss, seed=1, stream="survey")


def test_negative_flux_is_refused(tmp_path: Path) -> None:
    folder = bosz_2024(tmp_path)
    one = next(folder.glob("m-0.25/*t4000_g+4.0*"))
    flux = model(4000.0, 4.0)
    flux[17] = -1
    write_text(one, flux, flux)

    with pytest.raises(ValueError, match=r"flux is negative or not finite"):
        bosz(str(folder)).spectra(np.array([0]), AXIS)


@pytest.mark.parametrize("read", [bosz, phoenix, table])
def test_there_must_be_models(read: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such (folder|file)"):
        read(str(tmp_path / "nowhere"))  # type: ignore[operator]
    if read is not table:
        with pytest.raises(ValueError, match=r"no model of format"):
            read(str(tmp_path))  # type: ignore[operator]
