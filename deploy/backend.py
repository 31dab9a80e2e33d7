"""The contract of a cluster: workers for a while, or a script for later.

A backend is a module on the shelf `deploy.backends` with the functions of `Backend`; one that keeps
jobs in a queue has those of `Queue` too.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

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


class QueueError(RuntimeError):
    """A queue that is not here, does not answer, or refuses; in its own words."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A job as its queue sees it."""

    state: str
    "The queue's own word: PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT, NODE_FAIL ..."
    reason: str = ""
    "Why it waits, or why it ended, in the queue's words."
    status: int | None = None
    "Exit status of its script, where the queue tells."


@runtime_checkable
class Queue(Backend, Protocol):
    """A place that queues jobs, one after another, and knows what becomes of them."""

    def states(self, ids: Iterable[str]) -> dict[str, Seen]:
        """What the queue knows of jobs, in one question; those that it has forgotten are left out.

        Raises
        ------
        QueueError
            When it does not answer; says what it said.
        """
        ...

    def cancel(self, ids: Iterable[str]) -> None:
        """Take jobs out of the queue."""
        ...
