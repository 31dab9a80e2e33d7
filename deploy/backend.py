"""The contract of a cluster: workers for a while, or a script for later.

A backend is a module on the shelf `deploy.backends` with the functions of `Backend`.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from distributed import Client

from deploy.job import Job, Resources


class Backend(Protocol):
    """One kind of place that specmill runs on."""

    def render(self, job: Job) -> str:
        """The script that runs a job, as text; nothing is touched and nothing need be installed."""
        ...

    def submit(self, job: Job) -> str:
        """Start a job, or queue it; gives the id that the place knows it by.

        Raises
        ------
        RuntimeError
            When the place is not here, or refuses; says what it said.
        """
        ...

    def cluster(
        self, resources: Resources, folder: Path | None = None
    ) -> AbstractContextManager[Client]:
        """Workers, closed with the context; folder is for what they spill and log.

        Raises
        ------
        ValueError
            When the place cannot give these resources.
        """
        ...
