"""How fast the mocks are drawn; how many linear components mock-v1 has, what its indices are.

    python benchmarks/mock.py [--rows 4096]

A mock with a handful of components is a problem that any linear method solves: the table says
how far this one is from that.
"""

import argparse
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.index import measure
from storage.grid import Grid
from storage.names import resolve

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
Z = 0.05
# At one redshift this observed grid is 3700-7500 A at rest, 1 A a pixel.
REST = Grid(kind="linear", start=3700 * (1 + Z), step=1 + Z, size=3800)
SURVEYS: dict[str, tuple[str, Grid]] = {
    "SDSS": ("mock-v1", SDSS),
    "SDSS, lines of DESI": ("mock-v2", SDSS),
    "DESI": ("mock-desi", Grid(kind="linear", start=3600.0, step=0.8, size=7781)),
    "WEAVE-LR blue": ("mock-weave", Grid(kind="linear", start=3660.0, step=0.25, size=9601)),
    "WEAVE-LR red": ("mock-weave", Grid(kind="linear", start=5790.0, step=0.25, size=15201)),
}
INDICES = ("Dn4000", "HdeltaF", "Mgb")
LEVELS = (99.0, 99.9, 99.99)
ONE_Z = {"z": (Z, Z), "galactic": 0.0}
STILL = {"sigma_v": (180.0, 180.0), "gas_scatter": 0.0, "velocity": 0.0}
POPULATIONS: dict[str, dict[str, Any]] = {
    "mock-v1": {},
    "no outliers": {"outliers": 0.0},
    "no shifts, dispersions": STILL,
    "none of these": {**STILL, "outliers": 0.0},
    "none, no dust, no lines": {**STILL, "outliers": 0.0, "dust": 0.0, "emission": False},
}


def card(name: str = "mock-v1") -> dict[str, Any]:
    path = Path(__file__).parents[1] / "deploy" / "cards" / "mocks" / f"{name}.toml"
    return tomllib.loads(path.read_text())


def components(options: dict[str, Any], rows: int) -> list[int]:
    """Linear components that hold each of LEVELS per cent of the variance."""
    mock = resolve("storage.mocks", options.pop("mock")).build(**options)
    flux = mock.truth(rows, REST, seed=1, stream="benchmark")["flux"].to_numpy().astype(float)
    rest = REST.wavelength / (1 + Z)
    flux /= flux[:, (rest >= 6000) & (rest <= 6500)].mean(axis=1, keepdims=True)
    flux -= flux.mean(axis=0)
    power = np.linalg.eigvalsh(flux.T @ flux if rows > REST.size else flux @ flux.T)[::-1]
    held = 100 * np.cumsum(power) / power.sum()
    return [int(np.searchsorted(held, level)) + 1 for level in LEVELS]


def rates(rows: int) -> None:
    """Processor time, which neighbours on the machine do not change much."""
    print(f"{f'ms a spectrum, {rows} rows':26s}  truth  observe")
    for survey, (name, grid) in SURVEYS.items():
        options = card(name)
        mock = resolve("storage.mocks", options.pop("mock")).build(**options)
        mock.observe(mock.truth(1, grid, 1, "warm"), grid, 1, "warm")
        start = time.process_time()
        truth = mock.truth(rows, grid, 1, "rate")
        middle = time.process_time()
        mock.observe(truth, grid, 1, "rate")
        each = (1e3 * (middle - start) / rows, 1e3 * (time.process_time() - middle) / rows)
        print(f"{survey:26s}  {each[0]:5.2f}  {each[1]:7.2f}")


def indices(rows: int) -> None:
    options = card()
    mock = resolve("storage.mocks", options.pop("mock")).build(**options)
    truth = mock.truth(rows, SDSS, 1, "rate")
    observed = mock.observe(truth, SDSS, 1, "rate")
    flux, z = truth["flux"].to_numpy(), truth["z"].to_numpy()
    values = measure(SDSS.wavelength, flux, None, INDICES, z=z).value.numpy()
    columns = dict(zip(INDICES, values.T, strict=True))
    columns |= {name: observed[name].to_numpy() for name in ("snr_g", "snr_r")}
    columns["snr_r / snr_g"] = columns["snr_r"] / columns["snr_g"]
    print(f"\n{'5, 50, 95 %':26s}")
    for name, column in columns.items():
        print(f"{name:26s}" + "".join(f"{v:8.2f}" for v in np.nanpercentile(column, [5, 50, 95])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    rows = parser.parse_args().rows
    rates(min(rows, 1024))
    indices(rows)
    print(f"\n{'components for':26s}" + "".join(f"{level:>7}%" for level in LEVELS))
    for name, change in POPULATIONS.items():
        found = components({**card(), **ONE_Z, **change}, rows)
        print(f"{name:26s}" + "".join(f"{count:8d}" for count in found))


if __name__ == "__main__":
    main()
