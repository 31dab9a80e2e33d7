"""One peer on the spectra of `benchmarks/measure.py`, run by a Python that has it.

    PYTHON measure_peers.py PEER SPECTRA.npz

Prints lines of "what <tab> microseconds of CPU a spectrum". Each peer is used as its documentation
shows, one spectrum at a time where it knows no other way, and is warm before the clock starts.
"""

import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Spectra = dict[str, Array]
SECONDS = 4.0
"As long as a peer runs at least, unless it has seen every spectrum first."


def each(run: Callable[[int], object], n: int) -> float:
    """CPU time of one spectrum, microseconds: the mean over as many as the time allows."""
    run(0)
    start, done = time.process_time(), 0
    while done < n and time.process_time() - start < SECONDS:
        run(done)
        done += 1
    return (time.process_time() - start) / done * 1e6


def pylick(spectra: Spectra) -> dict[str, float]:
    from pylick.analysis import Galaxy
    from pylick.indices import IndexLibrary

    wave, flux, error = spectra["rest"], spectra["flux"], spectra["error"]
    known = {str(name): key for key, name in enumerate(IndexLibrary().names)}
    three = [known[name] for name in ("Dn4000", "Hdelta_F", "Mgb") if name in known]
    bands = [band[band > 0] for band in IndexLibrary().regions.reshape(len(known), -1)]
    every = [
        key
        for key, band in enumerate(bands)
        if band.size and wave[0] < band.min() and band.max() < wave[-1]
    ]
    found = {}
    for method in ("int", "exact"):

        def run(row: int, keys: list[int] = three, how: str = method) -> None:
            Galaxy(row, keys, wave, flux[row], ferr=error[row], meas_method=how, verbose=False)

        found[f"pylick, {method}: {len(three)} indices and errors"] = each(run, len(flux))
        if method == "int":
            all_of = each(lambda row: run(row, every), len(flux))
            found[f"pylick, int: {len(every)} indices and errors"] = all_of
    return found


def pyphot(spectra: Spectra) -> dict[str, float]:
    from pyphot import LickLibrary

    library = LickLibrary()
    wave, flux = spectra["rest"], spectra["flux"]
    found = {}
    for what, names in (("HdeltaF, Mgb", ["Hdelta_F", "Mg_b"]), ("25 Lick", library.content[:25])):
        indices = [library[name] for name in names]
        start = time.process_time()
        for index in indices:
            index.get(wave, flux)
        took = (time.process_time() - start) / len(flux) * 1e6
        found[f"pyphot, in one batch: {what}, no errors"] = took
    return found


def mangadap(spectra: Spectra) -> dict[str, float]:
    from mangadap.par.absorptionindexdb import AbsorptionIndexDB
    from mangadap.par.bandheadindexdb import BandheadIndexDB
    from mangadap.proc.spectralindices import (
        AbsorptionLineIndices,
        BandheadIndices,
    )

    wave, flux, error = spectra["rest"], spectra["flux"], spectra["error"]
    lick, breaks = AbsorptionIndexDB.from_key("EXTINDX"), BandheadIndexDB.from_key("BHBASIC")
    sides = ("blueside", "redside", "primary")

    def run(row: int, lines: Array, heads: Array) -> None:
        if len(lines):
            bands = [lick[side][lines] for side in sides]
            units = lick["units"][lines]
            AbsorptionLineIndices(wave, flux[row], *bands, err=error[row], log=False, units=units)
        if len(heads):
            bands = [breaks[side][heads] for side in sides[:2]]
            density = wave**2
            BandheadIndices(
                wave,
                flux[row] * density,
                *bands,
                err=error[row] * density,
                log=False,
                order=breaks["order"][heads],
            )

    names, heads = list(lick["name"]), list(breaks["name"])
    two = np.array([names.index("HDeltaF"), names.index("Mgb")])
    one, none = np.array([heads.index("Dn4000")]), np.array([], int)
    every = np.arange(25)
    return {
        "mangadap: 3 indices and errors": each(lambda row: run(row, two, one), len(flux)),
        "mangadap: 25 Lick and errors": each(lambda row: run(row, every, none), len(flux)),
    }


def specutils(spectra: Spectra) -> dict[str, float]:
    """By hand: it has no side bands. No errors."""
    from astropy import units as u
    from specutils import SpectralRegion, Spectrum
    from specutils.analysis import equivalent_width
    from specutils.manipulation import extract_region

    wave, flux = spectra["rest"] * u.AA, spectra["flux"]
    bands = {"HdeltaF": (4057.25, 4088.5, 4091.0, 4112.25, 4114.75, 4137.25)}
    bands["Mgb"] = (5142.625, 5161.375, 5160.125, 5192.625, 5191.375, 5206.375)

    def mean(spectrum: Any, low: float, high: float) -> float:
        part = extract_region(spectrum, SpectralRegion(low * u.AA, high * u.AA))
        return float(part.flux.value.mean())

    def run(row: int) -> None:
        spectrum = Spectrum(spectral_axis=wave, flux=flux[row] * u.Jy)
        _ = mean(spectrum, 4000, 4100) / mean(spectrum, 3850, 3950)
        for b0, b1, f0, f1, r0, r1 in bands.values():
            left, right = mean(spectrum, b0, b1), mean(spectrum, r0, r1)
            slope = (right - left) / ((r0 + r1 - b0 - b1) / 2)
            line = left + slope * (wave.value - (b0 + b1) / 2)
            region = SpectralRegion(f0 * u.AA, f1 * u.AA)
            divided = Spectrum(spectral_axis=wave, flux=flux[row] / line * u.one)
            equivalent_width(divided, continuum=1, regions=region)

    return {"specutils, by hand: 3 indices, no errors": each(run, len(flux))}


def fastspecfit(spectra: Spectra) -> dict[str, float]:
    from fastspecfit.photometry import Photometry

    wave, flux, ivar = spectra["rest"], spectra["flux"], spectra["error"] ** -2.0

    def run(row: int) -> None:
        Photometry.get_dn4000(wave, flux[row], flam_ivar=ivar[row], rest=True)

    return {"fastspecfit: Dn4000 and error": each(run, len(flux))}


def ppxf(spectra: Spectra) -> dict[str, float]:
    """Starlight and emission lines: the templates of ours, a polynomial of the same degree."""
    from ppxf.ppxf import ppxf as fit
    from ppxf.ppxf_util import emission_lines

    stars, axis = spectra["templates"].T, np.log(spectra["template_wave"])
    seen, z = np.log(spectra["line_wave"]), spectra["line_z"]
    velscale = 299792.458 * (seen[1] - seen[0])

    def run(row: int) -> None:
        rest = np.exp(seen) / (1 + z[row])
        keep = (rest > 3700) & (rest < 7000)
        span = rest[keep][[0, -1]]
        gas, _, _ = emission_lines(axis, span, 2.8)
        gas = gas[:, : gas.shape[1]]
        component = np.array([0] * stars.shape[1] + [1] * gas.shape[1])
        flux, noise = spectra["line_flux"][row][keep], spectra["line_error"][row][keep]
        fit(
            np.hstack([stars, gas]),
            flux,
            noise,
            velscale,
            [[0.0, 150.0], [0.0, 100.0]],
            moments=[2, 2],
            degree=-1,
            mdegree=int(spectra["degree"]),
            component=component,
            gas_component=component > 0,
            lam=rest[keep],
            lam_temp=np.exp(axis),
            velscale_ratio=2,
            quiet=True,
        )

    return {"ppxf: starlight and emission lines": each(run, len(z))}


PEERS = {made.__name__: made for made in (pylick, pyphot, mangadap, specutils, fastspecfit, ppxf)}


def main(peer: str, path: str) -> None:
    with np.load(path) as given:
        spectra = {name: given[name] for name in given.files}
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        found = PEERS[peer](spectra)
    for what, took in found.items():
        print(f"{what}\t{took}")


if __name__ == "__main__":
    main(*sys.argv[1:])
