"""Emission lines of real SDSS galaxies beside those of SDSS itself: `python benchmarks/spzline.py`.

The fits of the SDSS pipeline are the third table of each spec file (SPZLINE). Wanted are spec files
below a folder, and for starlight a library of populations; the analytic toy without one.
"""

import argparse
import os
from pathlib import Path

import matplotlib as mpl
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.lines.fit import LineFlag, Lines, measure_lines
from pipeline.lines.line_list import LINES, names, number
from pipeline.lines.templates import Basis, analytic, from_files
from storage.grid import Grid

GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)
MIUSCAT_FWHM = 2.51
SNR = 5.0
_SAME_KMS = 50.0

Array = NDArray[np.float64]


def galaxies(folder: Path) -> list[Path]:
    """Files of galaxies with a redshift that nothing warns of."""
    found = []
    for path in sorted(folder.glob("spec-*.fits")):
        with fits.open(path) as hdus:
            row = hdus[2].data[0]
            if row["CLASS"].strip() == "GALAXY" and row["ZWARNING"] == 0:
                found.append(path)
    return found


def read(paths: list[Path]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Spectra on `GRID`, and SPZLINE's area, error, equivalent width, error, sigma and velocity."""
    spectra = {name: np.zeros((len(paths), GRID.size)) for name in ("flux", "ivar", "lsf")}
    spectra |= {"z": np.zeros(len(paths)), "vdisp": np.zeros(len(paths))}
    columns = ("LINEAREA", "LINEAREA_ERR", "LINEEW", "LINEEW_ERR", "LINESIGMA", "LINEZ")
    theirs = {name: np.full((len(paths), len(LINES)), np.nan) for name in columns}
    for row, path in enumerate(paths):
        with fits.open(path) as hdus:
            coadd, summary, lines = (hdus[k].data for k in (1, 2, 3))
            first = int(np.rint(GRID.pixel(10.0 ** coadd["loglam"][0])))
            place = slice(first, first + len(coadd))
            for name, column in (("flux", "flux"), ("ivar", "ivar"), ("lsf", "wdisp")):
                spectra[name][row, place] = coadd[column]
            spectra["z"][row] = summary["Z"][0]
            spectra["vdisp"][row] = summary["VDISP"][0]
            for one in lines:
                off = [(one["LINEWAVE"] / line.wavelength - 1) * 299792.458 for line in LINES]
                best = int(np.argmin(np.abs(off)))
                covered = one["LINEAREA_ERR"] > 0 and one["LINENPIXLEFT"] + one["LINENPIXRIGHT"] > 0
                if abs(off[best]) < _SAME_KMS and covered:
                    for name in columns:
                        theirs[name][row, best] = one[name]
    return spectra, theirs


def tables(ours: Lines, theirs: dict[str, Array]) -> tuple[Array, NDArray[np.bool_]]:
    """Pulls (N, line), and which lines count: seen by either at S/N 5, measured by both."""
    flux, error = ours.flux.numpy(), ours.flux_err.numpy()
    both = np.hypot(error, theirs["LINEAREA_ERR"])
    pull = (flux - theirs["LINEAREA"]) / both
    seen = np.maximum(flux / error, theirs["LINEAREA"] / theirs["LINEAREA_ERR"]) > SNR
    return pull, seen & np.isfinite(pull)


def report(ours: Lines, theirs: dict[str, Array], paths: list[Path]) -> None:
    pull, use = tables(ours, theirs)
    flux, error = ours.flux.numpy(), ours.flux_err.numpy()
    ratio = flux / theirs["LINEAREA"]
    print(f"{'line':10s} {'n':>3s} {'ours/SDSS':>9s} {'pull':>6s} {'spread':>6s} {'errors':>6s}")
    for column, name in enumerate([*names(), "all"]):
        rows = use if name == "all" else use & (np.arange(len(LINES)) == column)
        if not rows.any():
            continue
        p, r = pull[rows], ratio[rows]
        e = (error / theirs["LINEAREA_ERR"])[rows]
        spread = np.diff(np.percentile(p, (15.87, 84.13)))[0] / 2
        print(
            f"{name:10s} {rows.sum():3d} {np.median(r):9.3f} {np.median(p):6.2f} {spread:6.2f} "
            f"{np.median(e):6.2f}"
        )
    within = [f"{k}: {np.mean(np.abs(pull[use]) < k):.2f}" for k in (1, 2, 3)]
    print("share within so many combined errors: " + ", ".join(within))
    print("\nfarther than 3 errors apart:")
    for row, column in np.argwhere(use & (np.abs(pull) > 3)):
        print(
            f"{paths[row].stem} {names()[column]:10s} ours {flux[row, column]:8.1f} "
            f"+- {error[row, column]:6.1f} SDSS {theirs['LINEAREA'][row, column]:8.1f} "
            f"+- {theirs['LINEAREA_ERR'][row, column]:6.1f} sigma {ours.sigma[row, column]:4.0f} "
            f"SDSS {theirs['LINESIGMA'][row, column]:4.0f} "
            f"{LineFlag(int(ours.flag[row, column]))!r}"
        )


def draw(ours: Lines, theirs: dict[str, Array], file: Path, label: str) -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt

    pull, use = tables(ours, theirs)
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    # Names of balmer lines apart from the others: absorption is what makes them hard.
    for kind, colour in (("balmer", "tab:red"), ("forbidden", "tab:blue"), ("helium", "tab:green")):
        mine = use & np.array([line.kind == kind for line in LINES])
        axes[0].errorbar(
            theirs["LINEAREA"][mine], ours.flux.numpy()[mine], ours.flux_err.numpy()[mine],
            theirs["LINEAREA_ERR"][mine], fmt=".", color=colour, label=kind, lw=0.8,
        )  # fmt: skip
        mine &= theirs["LINEEW_ERR"] > 0
        axes[1].errorbar(
            theirs["LINEEW"][mine], ours.ew.numpy()[mine], ours.ew_err.numpy()[mine],
            theirs["LINEEW_ERR"][mine], fmt=".", color=colour, lw=0.8,
        )  # fmt: skip
    for panel, name in ((axes[0], "flux, 1e-17 erg/s/cm2"), (axes[1], "equivalent width, A")):
        _, high = panel.get_xlim()
        panel.plot([0.3, high], [0.3, high], color="black", lw=0.8)
        panel.set(xscale="log", yscale="log", xlabel=f"SDSS: {name}", ylabel=f"ours: {name}")
    axes[0].set(xlim=(3, None), ylim=(3, None))
    axes[1].set(xlim=(0.2, None), ylim=(0.2, None))
    axes[0].legend(title="lines")
    spread = np.diff(np.percentile(pull[use], (15.87, 84.13)))[0] / 2
    axes[2].hist(np.clip(pull[use], -6, 6), np.arange(-6.25, 6.5, 0.5), color="tab:grey")
    axes[2].set(
        xlabel="(ours - SDSS) / combined error",
        ylabel="lines",
        title=f"median {np.median(pull[use]):.2f}, half of 16-84 %: {spread:.2f}",
    )
    figure.suptitle(f"SDSS galaxies, lines at S/N > {SNR:g}; starlight: {label}")
    figure.savefig(file, dpi=110)


def starlight(templates: str) -> Basis:
    return from_files(templates, "air", MIUSCAT_FWHM) if templates else analytic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("SPECMILL_DATA", "../shared/data"))
    parser.add_argument("--spectra", type=Path, default=data / "sdss", help="folder of spec files")
    parser.add_argument(
        "--templates", default=str(data / "ssp_miuscat/*.fits"), help="pattern; empty: the toy"
    )
    parser.add_argument("--figure", type=Path, default=Path("spzline.png"))
    options = parser.parse_args()
    paths = galaxies(options.spectra)
    spectra, theirs = read(paths)
    basis = starlight(options.templates)
    ours = measure_lines(
        GRID.wavelength,
        spectra["flux"],
        spectra["ivar"],
        spectra["z"],
        lsf=spectra["lsf"],
        templates=basis,
    )
    report(ours, theirs, paths)
    print("\nstarlight: chi2 per pixel, dispersion, that of SDSS; velocity and width of Halpha")
    halpha = number("Halpha")
    for row, path in enumerate(paths):
        print(
            f"{path.stem} z {spectra['z'][row]:.4f} {ours.chi2[row]:6.2f} {ours.vdisp[row]:5.0f} "
            f"{spectra['vdisp'][row]:5.0f} {ours.velocity[row, halpha]:6.0f} "
            f"{ours.sigma[row, halpha]:5.0f}"
        )
    draw(ours, theirs, options.figure, Path(basis.label).parent.name or basis.label)
    print(f"figure: {options.figure}")


if __name__ == "__main__":
    main()
