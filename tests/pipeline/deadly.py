"""A reader of SDSS files that dies at some of them, as a broken library does."""

import os
import signal
from typing import Any

import xarray as xr

from storage.reader import Source
from storage.readers.sdss import Sdss

MARK = b"deadly"


class Deadly(Sdss):
    """Kills its process at a file that holds the mark."""

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        for file in source.files:
            with open(file, "rb") as content:  # noqa: PTH123
                if MARK in content.read():
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().read(source, root, config)


def build(**options: Any) -> Deadly:
    return Deadly(**options)
