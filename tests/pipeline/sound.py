"""A small store without a fault, written without workers: something to damage."""

from pathlib import Path
from typing import Any

import numpy as np

from storage import schema
from storage.grid import Grid
from storage.provenance import provenance
from storage.schema import Field, Status
from storage.store import Survey
from storage.writer import WORKER_DIMS, Writer, writing

CONFIG, GROUP, PRODUCT = "sdss", "spectra/sdss", "denoised/sdss/ppca-1a2b3c4d"
CHUNK = 8
ORIGIN = {**provenance(), "card_digest": "00000000"}


def build(path: Path | str, rows: int = 40, pixels: int = 300, *, chunk: int = CHUNK) -> str:
    """A store of spectra of noise, in chunks of a few rows, and one product of them."""
    grid = Grid(kind="log", start=3.6, step=1e-4, size=pixels)
    rng = np.random.default_rng(1)
    ds = schema.blank(rows, grid)
    names = np.array([f"{row:07d}" for row in range(rows)], np.dtypes.StringDType())
    values: dict[str, Any] = {
        "flux": rng.normal(10, 1, (rows, pixels)),
        "ivar": rng.uniform(0.5, 2, (rows, pixels)),
        "model": 10,
        "observation": names,
        "source": np.strings.add(names, ".fits"),
        "digest": np.strings.add(names, "-digest"),
        "object_id": np.arange(1, rows + 1),
        "split": 1 + np.arange(rows) % 4,
        "ra": rng.uniform(0, 360, rows),
        "dec": rng.uniform(-60, 60, rows),
        "z": rng.uniform(0, 0.2, rows),
        "status": Status.DONE,
    }
    for name, value in values.items():
        ds[name].values[:] = value
    flag = Field(dtype="u1", units="1", description="what to know")
    fields = {"flux": schema.PIXELS["flux"], "flag": flag, **schema.LEDGER}
    product = schema.template(rows, grid, fields).copy(deep=True)
    product["flux"].values[:], product["status"].values[:] = rng.normal(10, 1), Status.DONE
    Survey.create(str(path))
    with writing(str(path), "test") as writer:
        about = {**ORIGIN, "grid": grid.model_dump(), "reader": "sdss", "survey_root": "files"}
        about |= {"verdict": "failed", "frame": "fs"}
        for group, made in ((GROUP, ds), (PRODUCT, product)):
            writer.create_group(group, made, {**about, "complete": True}, chunk)
        writer.commit("room")
        fork = writer.fork()
        for group, made in ((GROUP, ds), (PRODUCT, product)):
            wide = {str(n): v.to_numpy() for n, v in made.items() if WORKER_DIMS & set(v.dims)}
            fork.write_block(group, 0, wide)
        writer.absorb([fork])
        for group, made in ((GROUP, ds), (PRODUCT, product)):
            long = {str(n): v.to_numpy() for n, v in made.items() if v.dims == ("spectrum",)}
            writer.write_columns(group, 0, long)
        writer.commit("rows")
    return str(path)


def put(store: str, group: str, first: int, **columns: Any) -> None:
    """Give some rows of columns other values, in a version of its own."""
    with writing(store, "test") as writer:
        typed = {
            name: np.atleast_1d(np.asarray(value, schema.dtype(_field(name))))
            for name, value in columns.items()
        }
        writer.write_columns(group, first, typed)
        writer.commit("changed")


def _field(name: str) -> Field:
    return schema.SPECTRA[name]


def arrays(writer: Writer, group: str, first: int, **pixels: np.ndarray) -> None:
    """Write some whole chunks of pixel arrays."""
    fork = writer.fork()
    fork.write_block(group, first, pixels)
    writer.absorb([fork])


def manifest(store: str, array: str) -> Path:
    """The file that lists the chunks of an array in the newest version."""
    import json

    import icechunk

    from storage.place import location

    repository = icechunk.Repository.open(location(store))
    told = json.loads(repository.inspect_snapshot(Survey.open(store).snapshot))
    (node,) = [node for node in told["nodes"] if node["path"] == f"/{array}"]
    (found,) = node["manifest_refs"]
    return Path(store, "manifests", found["id"])
