"""A reader of SDSS files that takes its time, so that there is some to be interrupted in.

`reader = "tests.slurm.patient"`, `[survey.options] patience = 0.01` on a card: seconds a spectrum.
"""

import time

import xarray as xr

from storage.reader import Source
from storage.readers.sdss import Sdss


class Patient(Sdss):
    _patience: float = 0.0

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        time.sleep(self._patience * source.rows)
        return super().read(source, root, config)


def build(patience: float = 0.0) -> Patient:
    reader = Patient()
    reader._patience = patience
    return reader
