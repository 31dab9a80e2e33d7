"""Time of line indices, in microseconds a spectrum and thread: `python benchmarks/measure.py`.

Ours with errors, at rest on a common axis and at a redshift of each spectrum's own; peers where
they are installed.
"""

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.index import measure, names

THREE = ("Dn4000", "HdeltaF", "Mgb")


def spectra(n: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    flux = rng.normal(1.0, 0.1, (n, pixels)).astype(np.float32)
    ivar = np.full((n, pixels), 100.0, np.float32)
    ivar[rng.random(ivar.shape) < 0.002] = 0
    return flux, ivar


def best(run: Callable[[], object], n: int, repeats: int) -> float:
    """CPU time of the fastest repeat, microseconds a spectrum."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) / n * 1e6


def ours(n: int, repeats: int) -> dict[str, float]:
    rest = 3700.0 + np.arange(3800)
    observed = 10 ** (3.55 + 1e-4 * np.arange(4700))
    flux, ivar = spectra(n, 3800)
    wide, wide_ivar = spectra(n, 4700)
    z = np.random.default_rng(1).uniform(0.05, 0.1, n)
    every = names()
    return {
        "three, common axis": best(lambda: measure(rest, flux, ivar, THREE), n, repeats),
        "three, own redshifts": best(
            lambda: measure(observed, wide, wide_ivar, THREE, z=z), n, repeats
        ),
        f"{len(every)}, common axis": best(lambda: measure(rest, flux, ivar, every), n, repeats),
        f"{len(every)}, own redshifts": best(
            lambda: measure(observed, wide, wide_ivar, every, z=z), n, repeats
        ),
    }


def pyphot(n: int, repeats: int) -> dict[str, float]:
    """HdeltaF and Mgb, no errors; whole pixels and another continuum, so other values."""
    from pyphot import LickLibrary  # type: ignore[import-not-found,unused-ignore]  # a peer

    wave = 3700.0 + np.arange(3800)
    flux, _ = spectra(min(n, 512), 3800)
    library = LickLibrary()
    indices = [library[name] for name in ("Hdelta_F", "Mg_b")]
    run = best(lambda: [index.get(wave, flux) for index in indices], len(flux), repeats)
    return {"pyphot: HdeltaF, Mgb, no errors": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=16384, help="spectra")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}")
    found = ours(options.n, options.repeats)
    if importlib.util.find_spec("pyphot"):
        found |= pyphot(options.n, options.repeats)
    for what, microseconds in found.items():
        print(f"{what:34s} {microseconds:8.2f} us/spectrum")


if __name__ == "__main__":
    main()
