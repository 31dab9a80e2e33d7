"""What every process of a trial begins with: imported once, then forked."""

import ctypes
import multiprocessing
from multiprocessing import forkserver

import dask
import torch

torch.set_num_threads(1)

import distributed.cli.dask_scheduler  # noqa: E402
import distributed.cli.dask_worker  # noqa: E402, F401

import pipeline.cli  # noqa: E402
import pipeline.measure  # noqa: E402
import pipeline.passes  # noqa: E402
import pipeline.reprocess  # noqa: E402
import pipeline.ingest  # noqa: E402
import deploy.backends.local  # noqa: E402
import deploy.backends.scheduler  # noqa: E402
import storage.readers.sdss  # noqa: E402, F401
import tests.faults.trouble  # noqa: E402, F401
