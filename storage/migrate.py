"""Stores of older specmills, brought up to date: a chain of steps, one commit."""

from collections.abc import Callable

import numpy as np

from storage import schema
from storage.schema import SCHEMA_VERSION, SchemaError
from storage.store import exists, schema_version
from storage.writer import Writer, writing


def migrate(path: str) -> list[str]:
    """Bring a store up to the schema of this specmill; gives what was done, a line a step.

    Older versions of it stay as they are.

    Raises
    ------
    FileNotFoundError
        When there is no store.
    LeaseError
        When somebody writes to it.
    SchemaError
        When a newer specmill wrote it, or one so old that there is no step from it.
    """
    if not exists(path):
        raise FileNotFoundError(f"{path}: no survey store here; `specmill ingest` makes one")
    if schema_version(path) == SCHEMA_VERSION:
        return []
    with writing(path, "migrate") as writer:
        # Another one may have migrated it before we got the lease.
        found = writer.attrs("").get("specmill_schema")
        steps = _chain(found, path)
        done = [
            f"schema {step} -> {step + 1}: {text}" for step in steps for text in STEPS[step](writer)
        ]
        if steps:
            writer.set_attrs("", {"specmill_schema": SCHEMA_VERSION})
            writer.commit(f"migrate: schema {found} -> {SCHEMA_VERSION}", {"steps": done})
    return done


def _chain(found: object, path: str) -> range:
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: written with schema version {found}, this specmill knows {SCHEMA_VERSION}: "
            "a newer specmill wrote it; use that one"
        )
    if not isinstance(found, int) or found < min(STEPS):
        raise SchemaError(f"{path}: schema version {found!r} is unknown; ingest again")
    return range(found, SCHEMA_VERSION)


def _to_2(writer: Writer) -> list[str]:
    """The size and time of every file; 0 is unknown, so that it is read again when asked for."""
    done = []
    for group in writer.groups():
        if not group.startswith("spectra/"):
            continue
        for name in ("source_size", "source_time"):
            if not writer.has(group, name):
                zeros = np.zeros(writer.rows(group), "i8")
                writer.add_column(group, name, schema.COLUMNS[name], zeros)
                done.append(f"{group}: {name} added, 0 for every row")
    return done or ["no group lacks a column"]


STEPS: dict[int, Callable[[Writer], list[str]]] = {1: _to_2}
"What leads from a schema version to the next."
