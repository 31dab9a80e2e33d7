"""What the errors and values of indices are worth: tables, as markdown.

    python -m benchmarks.evidence [--draws 20000] [--dap PYTHON] [--data FOLDER] [--out FILE]

Formal error over the scatter of draws, for every index on the grids of three surveys, four ways of
measuring (`tests/pipeline/error_scene.py`); and the values beside those of the MaNGA DAP, which
PYTHON has (`tests/pipeline/dap_peer.py`). FOLDER holds ssp_miuscat.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from pipeline.index import find, measure, names
from storage.grid import air_to_vacuum
from tests.pipeline import dap_peer
from tests.pipeline.error_scene import SCENES, WAYS, places

WANTED = 0.02
Column = dict[str, float]


def ratios(survey: str, way: str, wanted: Sequence[str], draws: int) -> Column:
    """Formal error over scatter of each index that the survey sees."""
    found: Column = {}
    for scene, here in places(survey, wanted):
        if here:
            found |= dict(zip(here, scene.ratio(way, here, draws).tolist(), strict=True))
    return found


def error_table(columns: dict[str, Column], wanted: Sequence[str]) -> Iterator[str]:
    """Lines of a table, one index a row; a ratio that misses what is wanted is bold."""
    yield "| index | " + " | ".join(columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for name in wanted:
        cells = [_cell(column.get(name)) for column in columns.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"
    worst = [max((abs(r - 1) for r in column.values()), default=0) for column in columns.values()]
    yield "| largest departure | " + " | ".join(f"{100 * each:.1f} %" for each in worst) + " |"


def _cell(ratio: float | None) -> str:
    if ratio is None:
        return "–"  # a dash in a table
    return f"{ratio:.3f}" if abs(ratio - 1) <= WANTED else f"**{ratio:.3f}**"


def parity(python: str, data: Path | None) -> Iterator[str]:
    """Lines of the table of differences from the DAP."""
    with tempfile.TemporaryDirectory() as folder:
        edges, answer = Path(folder) / "edges.npz", Path(folder) / "answer.npz"
        dap_peer.edges(edges)
        more = [] if data is None else [str(data / "ssp_miuscat")]
        script = Path(dap_peer.__file__)
        subprocess.run(
            [python, "-W", "ignore", str(script), str(edges), str(answer), *more],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with np.load(answer) as given:
            theirs = {name: given[name] for name in given.files}
    yield f"sdss-mangadap {theirs['version']}, {len(dap_peer.NAMES)} indices"
    yield ""
    yield "| spectra | number | largest difference | of | median |"
    yield "| --- | ---: | ---: | --- | ---: |"
    for what, ours, other in _compared(theirs, data):
        apart = np.abs(ours - other)
        worst = np.unravel_index(np.nanargmax(apart), apart.shape)
        name, middle = dap_peer.NAMES[worst[1]], np.nanmedian(apart)
        yield f"| {what} | {len(ours)} | {np.nanmax(apart):.1e} | {name} | {middle:.1e} |"


def _compared(
    theirs: dict[str, np.ndarray], data: Path | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What, ours and the DAP's (spectrum, index)."""
    sets = {axis: (wave, dap_peer.toy(axis), None) for axis, wave in dap_peer.AXES.items()}
    sets["manga"] = (theirs["manga/wave"], theirs["manga/flux"], theirs["manga/z"])
    for label, (wave, flux, z) in sets.items():
        ours = measure(wave, flux, None, dap_peer.NAMES, z=z).value.numpy()
        what = {"manga": "the DAP's own test spectra"}.get(label, f"made up, {label} pixels")
        yield what, ours, theirs[label]
        yield f"{what}; the DAP at its own bands in vacuum", ours, theirs[f"{label}/own"]
    if data is not None:
        wave, flux = dap_peer.miuscat(data / "ssp_miuscat")
        ours = measure(wave, flux, None, dap_peer.NAMES, medium="air").value.numpy()
        yield "MIUSCAT in air; the DAP's widths in A of air", ours, theirs["miuscat"]
        yield "MIUSCAT in air; widths in A of vacuum", ours, theirs["miuscat"] * _longer()


def _longer() -> np.ndarray:
    """Width of a feature in vacuum over that in air, of each index in A."""
    made = []
    for name in dap_peer.NAMES:
        index = find(name)
        feature = np.array(index.bands[1])
        in_angstrom = index.units == "Angstrom"
        made.append(np.ptp(air_to_vacuum(feature)) / np.ptp(feature) if in_angstrom else 1.0)
    return np.array(made)


def report(draws: int, more: int, python: str | None, data: Path | None) -> Iterator[str]:
    """Lines of the report, as they come."""
    command = f"python -m benchmarks.evidence --draws {draws} --more {more}"
    command += " --dap PYTHON" * (python is not None) + " --data FOLDER" * (data is not None)
    yield f"# Indices: errors and values, {date.today()}"
    yield ""
    yield f"{platform.machine()}, {os.cpu_count()} cores; `{command}`"
    yield ""
    yield "## Formal error over the scatter of draws"
    yield ""
    yield f"Known to {100 / np.sqrt(2 * draws):.1f} % as observed ({draws} draws), to"
    yield f"{100 / np.sqrt(2 * more):.1f} % in the other ways ({more} draws). Bold: more than"
    yield f"{100 * WANTED:.0f} % from 1. –: on no single arm of the survey."
    every = names()
    for way in WAYS:
        size = draws if way == "observed" else more
        columns = {}
        for survey in SCENES:
            columns[survey] = ratios(survey, way, every, size)
            print(f"{way}, {survey}: done", file=sys.stderr, flush=True)
        yield from ("", f"### {way}", "", *error_table(columns, every))
    if python is not None:
        yield from ("", "## Values beside the MaNGA DAP's", "", *parity(python, data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20000)
    parser.add_argument("--more", type=int, default=10000, help="draws of the other ways")
    parser.add_argument("--dap", metavar="PYTHON", help="one that has sdss-mangadap")
    parser.add_argument("--data", type=Path, help="the folder that holds ssp_miuscat")
    parser.add_argument("--out", type=Path, help="a file for the report")
    options = parser.parse_args()
    shown = []
    for line in report(options.draws, options.more, options.dap, options.data):
        print(line, flush=True)
        shown.append(line)
        if options.out:
            options.out.write_text("\n".join(shown) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
