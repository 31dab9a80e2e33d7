"""The store beside plain Zarr and plain numpy: `python benchmarks/store.py [--rows 200000]`.

Rows of 4,000 float32 go in by blocks and come out by scan, by id and by column. A cold scan begins
with its files out of the page cache. The rates are of uncompressed bytes.
"""

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from storage import schema
from storage.chunks import CODECS
from storage.grid import Grid
from storage.store import Survey
from storage.writer import CHUNK_ROWS, writing

PIXELS, BLOCK = 4000, 4096
GROUP = "spectra/bench"
GRID = Grid(kind="log", start=3.56, step=1e-4, size=PIXELS)
MB = PIXELS * 4 / 1e6
WANTED = 1000


@dataclass(frozen=True)
class Timed:
    wall: float
    cpu: float

    def line(self, what: str, rows: int) -> str:
        return (
            f"  {what:34s} {rows * MB / self.wall:8.0f} MB/s {rows * MB / self.cpu:8.0f} MB/cpu-s "
            f"{self.wall / rows * 1e6:8.1f} us/spectrum"
        )


def timed(run: Callable[[], object]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Timed(time.perf_counter() - wall, time.process_time() - cpu)


def block() -> np.ndarray:
    """Spectra of a smooth continuum and noise: the bits of real ones."""
    rng = np.random.default_rng(1)
    level = rng.lognormal(2, 1, (BLOCK, 1))
    return (level * (1 + 0.1 * rng.standard_normal((BLOCK, PIXELS)))).astype("f4")


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, BLOCK):
        yield first, min(rows, first + BLOCK)


def ids(rows: int) -> np.ndarray:
    return np.array([f"{39627000000000000 + row}" for row in range(rows)], np.dtypes.StringDType())


def evict(folder: Path) -> None:
    """Take the files below a folder out of the page cache."""
    os.sync()
    for file in folder.rglob("*") if folder.is_dir() else [folder]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def size(folder: Path) -> float:
    files = folder.rglob("*") if folder.is_dir() else [folder]
    return sum(file.stat().st_size for file in files if file.is_file())


# The store


def fill_store(path: Path, rows: int) -> None:
    data = block()
    fields = {n: schema.SPECTRA[n] for n in ("flux", "target_id", "z", "status", "reason_code")}
    Survey.create(str(path))
    with writing(str(path), "bench") as writer:
        writer.create_group(GROUP, schema.template(rows, GRID, fields), {})
        writer.write_columns(GROUP, 0, {"target_id": ids(rows), "z": np.linspace(0, 1, rows)})
        writer.commit("room")
        for first, last in blocks(rows):
            fork = writer.fork()
            fork.write_block(GROUP, first, {"flux": data[: last - first]})
            writer.absorb([fork])
            writer.commit(f"rows {first}:{last}")


def scan_store(path: Path, rows: int) -> None:
    flux = Survey.open(str(path)).dataset(GROUP)["flux"]
    for first in range(0, rows, CHUNK_ROWS):
        flux[first : first + CHUNK_ROWS].to_numpy()


def pick_store(path: Path, rows: int, wanted: np.ndarray) -> None:
    ds = Survey.open(str(path)).dataset(GROUP)
    names = ds["target_id"].to_numpy()
    found = np.flatnonzero(np.isin(names, ids(rows)[wanted]))
    assert ds["flux"][found].to_numpy().shape == (len(wanted), PIXELS)


def column_store(path: Path) -> None:
    Survey.open(str(path)).dataset(GROUP)["z"].to_numpy()


# Plain Zarr, in the same chunks with the same codecs, and with none


def fill_zarr(path: Path, rows: int, plain: bool = False) -> None:
    data = block()
    array = zarr.create_array(
        str(path),
        shape=(rows, PIXELS),
        chunks=(CHUNK_ROWS, PIXELS),
        dtype="f4",
        compressors=None if plain else CODECS,
    )
    for first, last in blocks(rows):
        array[first:last] = data[: last - first]


def scan_zarr(path: Path, rows: int) -> None:
    array = zarr.open_array(str(path), mode="r")
    for first in range(0, rows, CHUNK_ROWS):
        array[first : first + CHUNK_ROWS]


def pick_zarr(path: Path, wanted: np.ndarray) -> None:
    zarr.open_array(str(path), mode="r").oindex[wanted]


# numpy: what the disk and the memory give


def fill_numpy(path: Path, rows: int) -> None:
    data = block()
    with path.open("wb") as file:
        for first, last in blocks(rows):
            data[: last - first].tofile(file)


def scan_numpy(path: Path, rows: int) -> None:
    room = np.empty((CHUNK_ROWS, PIXELS), "f4")
    with path.open("rb", buffering=0) as file:
        while file.readinto(memoryview(room).cast("B")):
            pass


def pick_numpy(path: Path, rows: int, wanted: np.ndarray) -> None:
    np.memmap(path, "f4", "r", shape=(rows, PIXELS))[wanted].copy()


def series(
    name: str,
    path: Path,
    rows: int,
    fill: Callable[[], None],
    scan: Callable[[], None],
    pick: Callable[[], None],
) -> None:
    print(f"{name}:")
    written = timed(lambda: (fill(), os.sync()))
    print(written.line("write, to the disk", rows), f"  {size(path) / rows / 1e3:.1f} kB/spectrum")
    evict(path)
    print(timed(scan).line("scan, cold", rows))
    print(min((timed(scan) for _ in range(2)), key=lambda t: t.wall).line("scan, hot", rows))
    evict(path)
    cold = timed(pick).wall
    print(
        f"  {WANTED} spectra by id                {cold:8.2f} s cold {timed(pick).wall:8.2f} s hot"
    )


def everything(folder: Path, rows: int) -> None:
    wanted = np.sort(np.random.default_rng(2).choice(rows, WANTED, replace=False))
    store, plain, bare, raw = (
        folder / n for n in ("bench.icechunk", "same.zarr", "bare.zarr", "flux.bin")
    )
    series(
        "store",
        store,
        rows,
        lambda: fill_store(store, rows),
        lambda: scan_store(store, rows),
        lambda: pick_store(store, rows, wanted),
    )
    column = timed(lambda: column_store(store))
    print(f"  one column of {rows} rows        {column.wall * 1e3:8.1f} ms")
    shutil.rmtree(store)
    for name, path, none in (("zarr, same codecs", plain, False), ("zarr, no codec", bare, True)):
        series(
            name,
            path,
            rows,
            lambda path=path, none=none: fill_zarr(path, rows, none),
            lambda path=path: scan_zarr(path, rows),
            lambda path=path: pick_zarr(path, wanted),
        )
        shutil.rmtree(path)
    series(
        "numpy",
        raw,
        rows,
        lambda: fill_numpy(raw, rows),
        lambda: scan_numpy(raw, rows),
        lambda: pick_numpy(raw, rows, wanted),
    )


def block_of_survey(folder: Path) -> None:
    """One block of SDSS spectra, all their arrays, into the store and out again."""
    grid = Grid(kind="log", start=3.55, step=1e-4, size=4700)
    n = 4096
    rng = np.random.default_rng(3)
    flux = (10 + rng.standard_normal((n, grid.size))).astype("f4")
    given = {
        "flux": flux,
        "ivar": rng.uniform(0.5, 2, flux.shape).astype("f4"),
        "mask": np.zeros(flux.shape, "u4"),
        "model": np.full(flux.shape, 10, "f4"),
        "lsf": np.ones(flux.shape, "f2"),
    }
    path = str(folder / "block.icechunk")
    Survey.create(path)
    with writing(path, "bench") as writer:
        fields = {**schema.PIXELS, **schema.LEDGER}
        writer.create_group(GROUP, schema.template(n, grid, fields), {})
        writer.commit("room")
        for names in (("flux", "ivar"), tuple(given)):
            fork = writer.fork()
            into = timed(lambda: fork.write_block(GROUP, 0, {name: given[name] for name in names}))  # noqa: B023
            writer.absorb([fork])
            writer.commit("block")
            ds = Survey.open(path).dataset(GROUP)
            out = timed(lambda: [ds[name].to_numpy() for name in names])  # noqa: B023
            print(
                f"block of {n} SDSS spectra, {', '.join(names)}: in {into.cpu / n * 1e6:.0f} + out "
                f"{out.cpu / n * 1e6:.0f} us/spectrum of one core "
                f"({into.wall / n * 1e6:.0f} + {out.wall / n * 1e6:.0f} of wall)"
            )


def memory(rows: int, folder: str | None) -> float:
    """Peak resident memory of a process of its own that fills and scans a store, MB."""
    command = [sys.executable, __file__, "--only-memory", "--rows", str(rows)]
    command += ["--folder", folder] if folder else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(folder: str, rows: int) -> float:
    path = Path(folder) / "memory.icechunk"
    fill_store(path, rows)
    scan_store(path, rows)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--folder", default=None, help="where to write; about 16 kB a row")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_memory:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(peak(folder, options.rows))
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; {options.rows} x {PIXELS} float32"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        block_of_survey(Path(folder))
        everything(Path(folder), options.rows)
    few, many = (memory(n, options.folder) for n in (options.rows // 10, options.rows))
    print(
        f"peak memory: {few:.0f} MB for {options.rows // 10} rows, {many:.0f} MB for ten times that"
    )


if __name__ == "__main__":
    main()
