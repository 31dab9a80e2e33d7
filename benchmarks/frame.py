"""Cost of the frame: us per spectrum and core, there and back, beside float64 cumulative sums.

Run: python benchmarks/frame.py [spectra]
"""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from storage.dust import curve
from storage.grid import Grid
from training.frame import Frame
from training.frames import named

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
REPEATS = 7

Array = NDArray[np.float64]


def best(work: Callable[[], object], spectra: int) -> float:
    """Lowest CPU time of several runs, us per spectrum: others may use the machine."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) / spectra * 1e6


def cumulative(frame: Frame, flux: Array, ivar: Array, z: Array, ebv: Array) -> tuple[Array, Array]:
    """The plain way: flux on the frame from differences of its integral, row by row in float64.

    The error of a pixel is that of independent parts in proportion to their width.
    """
    k = curve("F99", SDSS.wavelength)
    out = np.zeros((2, len(flux), frame.grid.size))
    zero = np.zeros(1)
    for row in range(len(flux)):
        bright = 10 ** (0.4 * k * ebv[row])
        good = ivar[row] > 0
        variance = np.where(good, bright**2 / np.where(good, ivar[row], 1), 0)
        edges = frame.grid.edges * (1 + z[row])
        sums = [
            np.diff(np.interp(edges, SDSS.edges, np.concatenate([zero, np.cumsum(part)])))
            for part in (
                good * SDSS.widths,
                np.where(good, flux[row] * bright, 0) * SDSS.widths,
                variance * SDSS.widths**2,
            )
        ]
        covered = np.maximum(sums[0], 1e-9)
        out[0, row], out[1, row] = sums[1] / covered, covered**2 / np.maximum(sums[2], 1e-30)
    return out[0], out[1]


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main(spectra: int = 512) -> None:
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    flux = draw.normal(5, 1, (spectra, SDSS.size)).astype(np.float32)
    ivar = np.ones_like(flux)
    gone = draw.random(flux.shape) < 0.02
    flux[gone], ivar[gone] = 0, 0
    z, ebv = draw.uniform(0.05, 0.1, spectra), draw.uniform(0, 0.1, spectra)
    mapper = named("fs").on(SDSS)
    batch = mapper.to(flux, ivar, z, ebv)
    few = slice(0, min(64, spectra))
    rows = flux[few].astype(float), ivar[few].astype(float), z[few], ebv[few]
    expected, _ = cumulative(named("fs"), *rows)
    actual = (batch.x * batch.scale[:, None])[few].numpy()
    has_data = batch.weight[few].numpy() > 0
    apart = np.abs(actual / np.where(has_data, expected, 1) - 1)[has_data].max()

    print(f"machine  {processor()}, 1 thread, torch {torch.__version__}, {spectra} spectra")
    print(f"grids    {SDSS.size} log pixels <-> {mapper.frame.grid.size} linear pixels")
    lines = {
        "to": best(lambda: mapper.to(flux, ivar, z, ebv), spectra),
        "back": best(lambda: mapper.back(batch.x, batch.scale, z, ebv), spectra),
        "cumulative float64": best(lambda: cumulative(named("fs"), *rows), len(rows[0])),
    }
    for name, cost in lines.items():
        print(f"{name:20s} {cost:7.1f} us per spectrum")
    print(f"flux differs from float64 by at most {apart:.1e}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
