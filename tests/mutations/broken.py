"""Readers that are broken on purpose: each must be caught, or the trials are worth nothing."""

import ctypes
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from storage import border
from storage.reader import Source
from storage.readers.sdss import Sdss
from storage.schema import Reason, Status
from tests.mutations import bases
from tests.mutations.bases import Base
from tests.mutations.damage import FORMS


class Sound(Sdss):
    """Reads as the survey's reader does; `refused` is what becomes of a bad row."""

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        ds = super().read(source, root, config)
        for row in np.flatnonzero(ds["status"].to_numpy() == Status.QUARANTINED):
            self.refused(ds, int(row))
        return ds

    def refused(self, ds: xr.Dataset, row: int) -> None:
        pass


class Crashing(Sound):
    def refused(self, ds: xr.Dataset, row: int) -> None:
        raise KeyError("COADD")


class Dying(Sound):
    def refused(self, ds: xr.Dataset, row: int) -> None:
        ctypes.string_at(0)


class Hanging(Sound):
    def refused(self, ds: xr.Dataset, row: int) -> None:
        time.sleep(3600)


class Greedy(Sound):
    def refused(self, ds: xr.Dataset, row: int) -> None:
        np.ones(450 << 17).sum()


class Insatiable(Sound):
    def refused(self, ds: xr.Dataset, row: int) -> None:
        np.ones(1 << 40)


class Inventive(Sound):
    """Makes a good row of a bad one."""

    def refused(self, ds: xr.Dataset, row: int) -> None:
        ds["ivar"][row], ds["flux"][row], ds["status"][row] = 1, 1, Status.DONE
        ds["ra"][row], ds["dec"][row], ds["z"][row] = 1, 1, 0.1


class Silent(Sound):
    """Leaves bad files out, without a word."""

    def find(self, root: str, config: str) -> Iterator[Source]:
        for source in super().find(root, config):
            ds = super().read(source, root, config)
            good = np.flatnonzero(ds["status"].to_numpy() == Status.DONE)
            if len(good):
                yield replace(source, files=tuple(source.files[n] for n in good), rows=len(good))


class Wordless(Sound):
    def refused(self, ds: xr.Dataset, row: int) -> None:
        ds["reason"][row] = "bad"


class Careless(Sound):
    """Lets a quarantined row keep values."""

    def refused(self, ds: xr.Dataset, row: int) -> None:
        ds["ivar"][row] = 1


class Blind(Sound):
    """Reads nothing, not even the sound survey."""

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        raise NotImplementedError(config)


class Suspicious(Sound):
    """Refuses what is sound, but for the folders that come first: those of the sound survey."""

    _first: ClassVar[list[str]] = []

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        ds = super().read(source, root, config)
        if len(self._first) < len(FORMS):
            self._first.append(root)
            return ds
        for row in range(source.rows):
            border.refuse(ds, row, Reason.UNREADABLE, "I do not trust it")
        border.empty_refused(ds)
        return ds


class Forgetful(Sound):
    """Does not look at checksums, as one that has none."""

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        for file in source.files:
            if Path(file).is_file():
                content = Path(file).read_bytes()
                for card in (b"DATASUM =", b"CHECKSUM="):
                    content = content.replace(card, b"COMMENT  ")
                Path(file).write_bytes(content)
        return super().read(source, root, config)


def _base(kind: type[Sdss]) -> Base:
    return Base(reader=kind(), config="sdss", make=bases.spec_files)


def __getattr__(name: str) -> Any:
    """`tests.mutations.broken:crashing` makes the base of `Crashing`."""
    kind = globals().get(name.capitalize())
    if not (name.islower() and isinstance(kind, type) and issubclass(kind, Sound)):
        raise AttributeError(name)
    return lambda: _base(kind)
