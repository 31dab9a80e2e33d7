"""Time of indices and emission lines, in microseconds of CPU a spectrum, ours and our peers'.

    taskset -c 1 python -m benchmarks.measure [--peer NAME=PYTHON ...] [--out FILE]

One command, one run, one core, the same spectra. A peer (pylick, pyphot, mangadap, specutils,
fastspecfit, ppxf) runs in an environment of its own: PYTHON is one that has it.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch

from pipeline.index import measure, names
from storage.grid import Grid

ROOT = Path(__file__).resolve().parents[1]
THREE = ("Dn4000", "HdeltaF", "Mgb")
BREAKS = ("Dn4000", "D4000", "B4000")
REST = Grid(kind="linear", start=3700, step=1, size=3800)
OBSERVED = {
    "log 1e-4": Grid(kind="log", start=3.55, step=1e-4, size=4700),
    "linear 0.8 A": Grid(kind="linear", start=3600, step=0.8, size=7781),
}
WANTED = {"3, common": 4.0, "3, own": 12.0, "25, common": 30.0, "25, own": 80.0}
PEER_ROWS, LINE_ROWS = 512, 256


def lick() -> list[str]:
    """The 25 indices of Lick/IDS."""
    shown = ("HdeltaA", "HdeltaF", "HgammaA", "HgammaF", "Hbeta", "CN1", "CN2", "Ca4227", "G4300")
    shown += ("Fe4383", "Ca4455", "Fe4531", "C2_4668", "Fe5015", "Mg1", "Mg2", "Mgb", "Fe5270")
    shown += ("Fe5335", "Fe5406", "Fe5709", "Fe5782", "NaD", "TiO1", "TiO2")
    assert len(shown) == 25
    return list(shown)


def spectra(n: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Flux about 1 at S/N 10, and inverse variance; 0.2 % of the pixels have no data."""
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


def ours(n: int, repeats: int) -> Iterator[tuple[str, float, float | None]]:
    """What, microseconds, and the most it may be."""
    z = np.random.default_rng(1).uniform(0.05, 0.1, n)
    sets = {"3": THREE, "25": tuple(lick())}
    seen = spectra(n, REST.size)
    for size, wanted in sets.items():
        took = best(lambda w=wanted: measure(REST.wavelength, *seen, w), n, repeats)
        yield f"{size} indices and errors, common axis", took, WANTED[f"{size}, common"]
    for label, grid in OBSERVED.items():
        seen = spectra(n, grid.size)
        for size, wanted in sets.items():
            took = best(
                lambda w=wanted, g=grid, s=seen: measure(g.wavelength, *s, w, z=z), n, repeats
            )
            most = WANTED[f"{size}, own"] if grid.kind == "log" else None
            yield f"{size} indices and errors, own redshifts, {label}", took, most
    every = names()
    seen = spectra(n, OBSERVED["log 1e-4"].size)
    took = best(lambda: measure(OBSERVED["log 1e-4"].wavelength, *seen, every, z=z), n, repeats)
    yield f"all {len(every)} of the shelf, own redshifts, log 1e-4", took, None


def line_scene(n: int) -> dict[str, np.ndarray]:
    """Observed spectra of two populations and emission lines at S/N 20, and the templates."""
    from pipeline.lines import templates
    from storage.simulation.templates import REST as STARS

    rng, grid = np.random.default_rng(2), OBSERVED["log 1e-4"]
    basis, z = templates.analytic(), rng.uniform(0.03, 0.1, n)
    share = rng.random((n, len(basis.flux))) ** 4
    share = share / share.sum(1, keepdims=True)
    flux = np.empty((n, grid.size), np.float32)
    for row in range(n):
        rest = grid.wavelength / (1 + z[row])
        flux[row] = np.interp(rest, STARS.wavelength, share[row] @ basis.flux)
        for centre, peak in ((3728.5, 0.6), (4862.7, 0.4), (5008.2, 0.8), (6564.6, 1.2)):
            flux[row] += peak * np.exp(-0.5 * ((rest - centre) / 2.2) ** 2)
    error = np.full_like(flux, 0.05)
    flux += rng.normal(0, 1, flux.shape).astype("f4") * error
    kept = (STARS.wavelength > 3500) & (STARS.wavelength < 7200)
    return {
        "line_wave": grid.wavelength,
        "line_flux": flux,
        "line_error": error,
        "line_z": z,
        "templates": basis.flux[:, kept],
        "template_wave": STARS.wavelength[kept],
        "degree": np.array(templates.DEGREE),
    }


def lines(scene: dict[str, np.ndarray], repeats: int) -> float | None:
    """Ours on the scene; None where the package has no lines."""
    try:
        from pipeline.lines.fit import measure_lines
    except ImportError:
        return None
    flux, ivar = scene["line_flux"], scene["line_error"] ** -2.0

    def run() -> object:
        return measure_lines(scene["line_wave"], flux, ivar, scene["line_z"])

    run()
    return best(run, len(flux), repeats)


def theirs(peers: dict[str, str], scene: dict[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    """What the peers say of the same spectra."""
    flux, _ = spectra(PEER_ROWS, REST.size)
    error = np.full_like(flux, 0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectra.npz"
        np.savez(path, rest=REST.wavelength, flux=flux, error=error, **scene)
        for name, python in peers.items():
            command = [python, str(ROOT / "benchmarks/measure_peers.py"), name, str(path)]
            run = subprocess.run(command, capture_output=True, text=True, env=_one_thread())
            if run.returncode:
                print(f"{name}: {run.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            for line in run.stdout.splitlines():
                what, took = line.split("\t")
                yield what, float(took)


def _one_thread() -> dict[str, str]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | one


def report(n: int, repeats: int, peers: dict[str, str]) -> Iterator[str]:
    """Lines of the report, as they come."""
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    yield f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}"
    yield f"microseconds of CPU a spectrum, one core, best of {repeats} x {n} spectra"
    for what, took, most in ours(n, repeats):
        yield f"{what:58s} {took:10.2f}" + ("" if most is None else f"   at most {most:g}")
    scene = line_scene(LINE_ROWS)
    took_lines = lines(scene, min(repeats, 3))
    if took_lines is not None:
        yield f"{'starlight and emission lines':58s} {took_lines:10.1f}"
    for what, took in theirs(peers, scene):
        yield f"{what:58s} {took:10.1f}"
        if what.startswith("ppxf") and took_lines is not None:
            yield f"{'  over ours':58s} {took / took_lines:10.1f}   at least 100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=16384, help="spectra")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--out", type=Path, help="a file for the report")
    options = parser.parse_args()
    peers = dict(peer.split("=", 1) for peer in options.peer)
    shown = []
    for line in report(options.n, options.repeats, peers):
        print(line, flush=True)
        shown.append(line)
    if options.out:
        options.out.write_text("\n".join(shown) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
