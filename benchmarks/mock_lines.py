"""Emission lines of mock-v1 and mock-v2 beside those of DESI's star-forming galaxies.

    python benchmarks/mock_lines.py EW.npz [--rows 4096]

The file has ew_NAME and ivar_NAME (rest equivalent widths in A, emission positive) of `LINES`. The
mock's widths get the errors of the data and go through the same cuts.
"""

import argparse

import numpy as np
from numpy.typing import NDArray

from storage.grid import Grid
from storage.mocks.galaxy import build
from storage.simulation import nebula

Array = NDArray[np.float64]
SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
LINES: dict[str, tuple[str, ...]] = {
    "OII_DOUBLET": ("oii3726", "oii3729"),
    "HGAMMA": ("hgamma",),
    "HBETA": ("hbeta",),
    "OIII_4959": ("oiii4959",),
    "OIII_5007": ("oiii5007",),
    "NII_6548": ("nii6548",),
    "HALPHA": ("halpha",),
    "NII_6584": ("nii6584",),
    "SII_6716": ("sii6716",),
    "SII_6731": ("sii6731",),
}
AT = {name: k for k, name in enumerate(LINES)}


def equivalent_widths(rows: int, lines: str) -> tuple[Array, NDArray[np.bool_]]:
    """Rest EWs over the continuum on both sides of each line; who is star-forming."""
    kinds = {"galactic": 0.0, "outliers": 0.0, "z": (0.06, 0.2), "lines": lines}
    shining = build(**kinds).truth(rows, SDSS, 1, "ew")
    dark = build(**kinds, emission=False).truth(rows, SDSS, 1, "ew")["flux"].to_numpy()
    z, every, widths = shining["z"].to_numpy(), np.arange(rows), []
    for parts in LINES.values():
        rest = np.mean([nebula.LINES[part] for part in parts])
        sides = (rest + np.array([-25, -20, -15, 15, 20, 25])[:, None]) * (1 + z)
        continuum = dark[every, np.rint(SDSS.pixel(sides)).astype(int)].mean(axis=0)
        flux = np.sum([shining[f"flux_{part}"].to_numpy() for part in parts], axis=0)
        widths.append(flux / continuum / (1 + z))
    return np.stack(widths, axis=1), (shining["population"] == 1).to_numpy()


def chosen(width: Array, ivar: Array) -> NDArray[np.bool_]:
    """Well measured, and below the line of Kauffmann et al. (2003)."""
    snr = width * np.sqrt(ivar)
    good = (snr[:, AT["HALPHA"]] > 5) & (snr[:, AT["HBETA"]] > 5) & (snr[:, AT["NII_6584"]] > 3)
    good &= (width > 2e-3).all(axis=1)
    logs = np.log10(np.maximum(width, 1e-3))
    n2 = np.minimum(logs[:, AT["NII_6584"]] - logs[:, AT["HALPHA"]], 0.04)
    o3 = logs[:, AT["OIII_5007"]] - logs[:, AT["HBETA"]]
    return np.asarray(good & (n2 < 0.04) & (o3 < 0.61 / (n2 - 0.05) + 1.3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    parser.add_argument("--rows", type=int, default=4096)
    options = parser.parse_args()
    table = np.load(options.table)
    real, ivar = (
        np.stack([table[f"{kind}_{name}"] for name in LINES], axis=1).astype(float)
        for kind in ("ew", "ivar")
    )
    samples = {"DESI": np.log10(real[chosen(real, ivar)])}
    for name, lines in (("mock-v1", "relations"), ("mock-v2", "desi")):
        made, forming = equivalent_widths(options.rows, lines)
        rng = np.random.default_rng(1)
        its = ivar[rng.integers(0, len(ivar), len(made))]
        made = np.maximum(made + rng.standard_normal(made.shape) / np.sqrt(its), 1e-3)
        samples[name] = np.log10(made[chosen(made, its) & forming])
    print(f"{'median EW (A), scatter (dex)':30s}" + "".join(f"{n:>14s}" for n in samples))
    for line, k in AT.items():
        cells = (f"{10 ** np.median(s[:, k]):7.2f} {s[:, k].std():6.2f}" for s in samples.values())
        print(f"{line:30s}" + "".join(f"{cell:>14s}" for cell in cells))
    upper = np.triu_indices(len(LINES), 1)
    target = np.corrcoef(samples["DESI"].T)
    for name, sample in samples.items():
        off = np.abs(np.corrcoef(sample.T) - target)[upper]
        print(
            f"{name}: {len(sample)} galaxies; correlations differ by {off.mean():.2f} on average,"
        )
        print(f"    {off.max():.2f} at most")


if __name__ == "__main__":
    main()
