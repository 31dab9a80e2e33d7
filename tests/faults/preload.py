"""What every process of a trial begins with: imported once, then forked."""

import ctypes
import importlib

import dask
import torch

_MODULES = (
    "bokeh.application",
    "dask.array",
    "deploy.backends.local",
    "deploy.backends.scheduler",
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "distributed.dashboard.scheduler",
    "dust_extinction.parameter_averages",
    "pipeline.cli",
    "pipeline.ingest",
    "pipeline.measure",
    "pipeline.indices.lick",
    "pipeline.passes",
    "pipeline.reprocess",
    "pyarrow.pandas_compat",
    "scipy.interpolate",
    "storage.readers.sdss",
    "tests.faults.trouble",
    "training.models.butterworth",
    "training.models.ppca",
)
_VERSION_3, _OVERRIDES = 0x20080522, 0b110
"Of capset(2): CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root writes where none may."


def _obey_modes() -> None:
    """Have root refused by a read-only folder, as everybody else is."""
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        for at in range(3):
            sets[at] &= ~_OVERRIDES
        libc.capset(header, sets)


dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
torch.set_num_threads(1)
for _name in _MODULES:
    importlib.import_module(_name)
_obey_modes()
