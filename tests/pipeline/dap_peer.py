"""Indices by the MaNGA DAP (package `sdss-mangadap`), run by a Python that has it.

    PYTHON dap_peer.py EDGES.npz ANSWER.npz [MIUSCAT_FOLDER]

EDGES.npz (`edges`) holds the bands of our indices in vacuum and in air, A. ANSWER.npz gets the
indices (spectrum, index) of each set of spectra at these bands; where the spectra are in vacuum,
also at the DAP's own, and those bands. Only numpy is needed to import this file.

`dap_peer.npz` beside it is what sdss-mangadap 4.5.0 answered on 21 November 2026, less the spectra
that the DAP comes with (`kept`).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LICK = (
    *("HdeltaA", "HdeltaF", "CN1", "CN2", "Ca4227", "G4300", "HgammaA", "HgammaF", "Fe4383"),
    *("Ca4455", "Fe4531", "C2_4668", "Hbeta", "Fe5015", "Mg1", "Mg2", "Mgb", "Fe5270", "Fe5335"),
    *("Fe5406", "Fe5709", "Fe5782", "NaD", "TiO1", "TiO2"),
)
MAGNITUDES = ("CN1", "CN2", "Mg1", "Mg2", "TiO1", "TiO2")
BREAKS = ("Dn4000", "D4000")
NAMES = (*LICK, *BREAKS)
THEIRS = {
    **{"HdeltaA": "HDeltaA", "HdeltaF": "HDeltaF", "HgammaA": "HGammaA", "HgammaF": "HGammaF"},
    **{"C2_4668": "C24668", "Hbeta": "Hb"},
}
AXES = {"log": 10 ** (3.57 + 1e-4 * np.arange(2600)), "linear": 3650.0 + 0.8 * np.arange(3700)}


def edges(path: str | Path) -> None:
    """Write the bands of our indices."""
    from pipeline.index import find
    from storage.grid import air_to_vacuum

    air = {name: np.array(find(name).bands) for name in NAMES}
    vacuum = {f"vacuum/{name}": air_to_vacuum(bands) for name, bands in air.items()}
    np.savez(path, **vacuum, **{f"air/{name}": bands for name, bands in air.items()})


def kept(answer: str | Path, path: str | Path) -> None:
    """Write what the tests keep of an answer."""
    with np.load(answer) as made:
        names = [name for name in made.files if not name.startswith("manga")]
        np.savez_compressed(path, **{name: made[name] for name in names})


def toy(axis: str, spectra: int = 3) -> Array:
    """Flux (N, L) in vacuum: a break, a slope, 150 lines of all widths, and noise."""
    wave = AXES[axis]
    random = np.random.default_rng(5)
    found = []
    for _ in range(spectra):
        flux = 1 + 0.6 / (1 + np.exp(-(wave - 3980) / 30)) - 1e-4 * (wave - 4000)
        lines = zip(random.uniform(3700, 6600, 150), random.uniform(0.01, 0.12, 150), strict=True)
        for centre, depth in lines:
            flux -= depth * np.exp(-0.5 * ((wave - centre) / random.uniform(1.5, 8)) ** 2)
        found.append(flux + random.normal(0, 0.02, wave.size))
    return np.array(found)


def miuscat(folder: Path) -> tuple[Array, Array]:
    """Wavelength (L,), air A, and flux (N, L) of the MIUSCAT populations, by their file names."""
    from astropy.io import fits

    files = sorted(folder.glob("*.fits"))
    flux = np.array([np.asarray(fits.getdata(file), "f8") for file in files])
    header = fits.getheader(files[0])
    return header["CRVAL1"] + header["CDELT1"] * np.arange(flux.shape[1]), flux


def _measured(wave: Array, flux: Array, bands: dict[str, Array], log: bool) -> Array:
    from mangadap.proc.spectralindices import AbsorptionLineIndices, BandheadIndices

    blue, main, red = (np.array([bands[name][place] for name in LICK]) for place in range(3))
    low, high = (np.array([bands[name][place] for name in BREAKS]) for place in range(2))
    units = np.array(["mag" if name in MAGNITUDES else "ang" for name in LICK])
    order = np.array(["r_b"] * len(BREAKS))
    found = []
    for each in flux:
        lick = AbsorptionLineIndices(wave, each, blue, red, main, log=log, units=units)
        breaks = BandheadIndices(wave, each * wave**2, low, high, log=log, order=order)
        found.append([*lick.index, *breaks.index])
    return np.array(found, "f8")


def _own_bands() -> dict[str, Array]:
    from mangadap.par.absorptionindexdb import AbsorptionIndexDB
    from mangadap.par.bandheadindexdb import BandheadIndexDB

    lick, breaks = AbsorptionIndexDB.from_key("EXTINDX"), BandheadIndexDB.from_key("BHBASIC")
    found: dict[str, Array] = {}
    for names, table, sides in (
        (LICK, lick, ("blueside", "primary", "redside")),
        (BREAKS, breaks, ("blueside", "redside")),
    ):
        known = list(table["name"])
        for name in names:
            row = known.index(THEIRS.get(name, name))
            found[name] = np.array([table[side][row] for side in sides])
    return found


def _their_spectra() -> tuple[Array, Array, Array]:
    """The spectra that the DAP's own tests read: rest wavelengths of each (N, L), flux, z."""
    import mangadap
    from astropy.io import fits

    path = Path(mangadap.__file__).parent / "data/tests/MaNGA_test_spectra.fits.gz"
    with fits.open(path) as hdus:
        wave, flux = np.array(hdus["WAVE"].data, "f8"), np.array(hdus["FLUX"].data, "f8")
        z = np.array(hdus["Z"].data, "f8")
    return wave, flux, z


def main(ours: str, answer: str, folder: str | None = None) -> None:
    from importlib.metadata import version

    with np.load(ours) as given:
        vacuum = {name: given[f"vacuum/{name}"] for name in NAMES}
        air = {name: given[f"air/{name}"] for name in NAMES}
    own = _own_bands()
    made = {"version": np.array(version("sdss-mangadap"))}
    made |= {f"bands/{name}": bands for name, bands in own.items()}
    for axis, wave in AXES.items():
        for whose, bands in (("", vacuum), ("/own", own)):
            made[f"{axis}{whose}"] = _measured(wave, toy(axis), bands, axis == "log")
    wave, flux, z = _their_spectra()
    made["manga/wave"], made["manga/flux"], made["manga/z"] = wave, flux, z
    for whose, bands in (("", vacuum), ("/own", own)):
        rows = [
            _measured(wave / (1 + z), each[None], bands, True)[0]
            for each, z in zip(flux, z, strict=True)
        ]
        made[f"manga{whose}"] = np.array(rows)
    if folder is not None:
        wave, flux = miuscat(Path(folder))
        made["miuscat"] = _measured(wave, flux, air, log=False)
    np.savez_compressed(answer, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
