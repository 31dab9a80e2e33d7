"""Flow: tasks go to workers and come back, few at a time, whatever becomes of the workers."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, KilledWorker, as_completed
from distributed import Future as Remote
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from pipeline.block import Block, BlockError, Make, Target
from pipeline.worker import Failure, Task, work
from storage.fork import Fork

logger = logging.getLogger(__name__)

_GONE = (CancelledError, ClosedClientError, CommClosedError, TimeoutError)
"What Dask raises where its scheduler is there no more."
MANY = 8
"Failed blocks that are looked into, or one in a hundred: more are no fault of some spectra."


@dataclass
class Flow:
    """Blocks on their way through workers."""

    client: Client
    make: Make
    target: Target
    fork: Fork
    failed: list[tuple[Block, Failure]] = field(default_factory=list)
    "Blocks set aside, and why."
    _seconds: float = 0.0
    _suspects: set[Block] = field(default_factory=set)
    _many: int = MANY

    def run(self, blocks: list[Block]) -> Iterator[Task]:
        """Tasks as they finish; two a worker are under way, so that memory stays bounded.

        Raises
        ------
        BlockError
            When a failure is fatal, or more blocks fail than can be some spectra's fault.
        """
        waiting = deque(blocks)
        self._many = max(MANY, len(blocks) // 100)
        under_way: dict[Remote, tuple[Block, ...]] = {}
        running = as_completed()
        try:
            self._refill(waiting, under_way, running)
            for future in running:
                asked = under_way.pop(future)
                yield from self._taken(future, asked, waiting)
                self._refill(waiting, under_way, running)
        except _GONE as error:
            raise self._lost(error) from error
        finally:
            # A client that has lost its scheduler has nothing to cancel.
            with suppress(*_GONE):
                self.client.cancel(list(under_way))

    def one(self, block: Block, keep: bool = True) -> Task:
        """A block by itself, waited for.

        Raises
        ------
        BlockError
            When it fails and was to be kept.
        """
        future = self._submit((block,), keep)
        try:
            done: Task = future.result()
        except KilledWorker as error:
            done = Task(fork=self.fork, failed=block, failure=_killed(error))
        except _GONE as error:
            raise self._lost(error) from error
        if keep and done.failure:
            raise self.error(block, done.failure)
        return done

    def error(self, block: Block, failure: Failure) -> BlockError:
        """What ends a stage."""
        return BlockError(f"{self.target.name}: rows {block.first}:{block.last}: {failure.text}")

    def _lost(self, error: BaseException) -> BlockError:
        return BlockError(
            f"{self.target.name}: the scheduler is gone ({type(error).__name__}: {error}); what "
            "was committed is whole: start it, and the same command goes on"
        )

    def _taken(
        self, future: Remote, asked: tuple[Block, ...], waiting: deque[Block]
    ) -> Iterator[Task]:
        try:
            done: Task = future.result()
        except KilledWorker as error:
            if len(asked) > 1:
                # One of them did it: each by itself says which.
                self._suspects.update(asked)
                waiting.extendleft(reversed(asked))
            else:
                self._set_aside(asked[0], _killed(error))
            return
        if done.failed is not None and done.failure is not None:
            made = {piece.block for piece in done.pieces} | {done.failed}
            left = [block for block in asked if block not in made]
            waiting.extendleft(reversed(left))
            self._set_aside(done.failed, done.failure)
        if done.pieces:
            self._seconds = done.seconds
            yield done

    def _set_aside(self, block: Block, failure: Failure) -> None:
        self.failed.append((block, failure))
        if failure.fatal or len(self.failed) > self._many:
            raise self.error(block, failure)

    def _refill(
        self,
        waiting: deque[Block],
        under_way: dict[Remote, tuple[Block, ...]],
        running: Any,
    ) -> None:
        workers = self._workers()
        while waiting and len(under_way) < 2 * workers:
            task = self._next(waiting, workers)
            under_way[future := self._submit(task)] = task
            running.add(future)

    def _workers(self) -> int:
        """How many there are now: they come and go."""
        try:
            return max(1, len(self.client.nthreads()))
        except OSError as error:
            # Asked on a connection of its own, which says so in another way than the rest.
            raise self._lost(error) from error

    def _next(self, waiting: deque[Block], workers: int) -> tuple[Block, ...]:
        """Blocks for `task_s`, but a fair share at the end, when workers would wait for one."""
        share = len(waiting) // (2 * workers)
        wanted = int(self.target.task_s / self._seconds) if self._seconds else 1
        count = 1 if waiting[0] in self._suspects else max(1, min(wanted, share))
        return tuple(waiting.popleft() for _ in range(count))

    def _submit(self, blocks: tuple[Block, ...], keep: bool = True) -> Remote:
        # A key of its own: the result of another run must never be taken for this one's.
        key = f"{self.target.name}-{blocks[0].first}-{time.monotonic_ns()}"
        return self.client.submit(work, self.make, blocks, self.fork, keep, key=key, pure=False)


def _killed(error: KilledWorker) -> Failure:
    return Failure(
        phase="compute",
        text=f"whoever computes it dies, out of memory perhaps ({error})".splitlines()[0],
        fatal=False,
    )
