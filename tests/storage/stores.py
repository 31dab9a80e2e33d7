"""Small stores for the tests of the store."""

from pathlib import Path

import numpy as np

from storage import schema
from storage.grid import Grid
from storage.store import Survey
from storage.writer import writing

GRID = Grid(kind="log", start=3.55, step=1e-4, size=1000)
GROUP = "spectra/sdss"
ROWS, CHUNK = 10, 4


def pixels(value: float, rows: int = ROWS) -> np.ndarray:
    """Noise that does not compress, so that every chunk is an object of its own."""
    noise = np.random.default_rng(int(value)).normal(size=(rows, GRID.size))
    return (noise + value).astype("f4")


def made(path: str | Path) -> str:
    """A store with room for ten spectra."""
    Survey.create(str(path))
    with writing(str(path), "test") as writer:
        shape = {name: schema.SPECTRA[name] for name in ("flux", "z", "status", "reason_code")}
        writer.create_group(GROUP, schema.template(ROWS, GRID, shape), {}, chunk_rows=CHUNK)
        writer.commit("room")
    return str(path)


def written(path: str, value: float) -> str:
    """Another version of it, with flux of its own; gives the snapshot."""
    with writing(path, "test") as writer:
        fork = writer.fork()
        fork.write_block(GROUP, 0, {"flux": pixels(value)})
        writer.absorb([fork])
        return writer.commit(f"flux {value:g}")


def flux(path: str, snapshot: str | None = None) -> np.ndarray:
    """The flux of a version of it."""
    return Survey.open(path, snapshot=snapshot).dataset(GROUP)["flux"].to_numpy()
