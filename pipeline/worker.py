"""What a worker does: blocks one after the other, one read ahead and one written behind.

Everything here runs in a worker process; `pipeline.flow` sends it there.
"""

import contextvars
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from distributed import Worker, WorkerPlugin

from pipeline.block import Ahead, Block, Made, Make
from storage.place import StoreError
from storage.schema import Status
from storage.writer import WORKER_DIMS, Fork

Phase = Literal["read", "compute", "write"]
Columns = dict[str, np.ndarray]
_block: contextvars.ContextVar[str] = contextvars.ContextVar("block", default="-")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a block was not made."""

    phase: Phase
    text: str
    fatal: bool
    "Whether it is the store's fault, or the stage's: no other block will fare better."

    def __str__(self) -> str:
        return f"{self.text} ({self.phase})"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One block that was made."""

    block: Block
    columns: dict[str, Columns]
    "By group."
    seconds: float
    spent: dict[str, float] = field(default_factory=dict)
    "Seconds of it that each group took."


@dataclass(kw_only=True)
class Task:
    """Some blocks as a worker leaves them."""

    fork: Fork
    pieces: list[Piece] = field(default_factory=list)
    failed: Block | None = None
    failure: Failure | None = None

    @property
    def seconds(self) -> float:
        """What a block took, on average."""
        return sum(piece.seconds for piece in self.pieces) / max(1, len(self.pieces))


def work(make: Make, blocks: tuple[Block, ...], fork: Fork, keep: bool = True) -> Task:
    """Make blocks, in order; ends at the first that fails. Without `keep` nothing is written."""
    # Tasks of one process may share the object that came with them.
    task = Task(fork=fork.again())
    with ThreadPoolExecutor(1, "read") as reads, ThreadPoolExecutor(1, "write") as writes:
        ahead = reads.submit(_read, make, blocks[0])
        behind = _Behind(task, writes)
        begin = time.monotonic()
        for number, block in enumerate(blocks):
            phase: Phase = "read"
            try:
                held = ahead.result()
                if number + 1 < len(blocks):
                    ahead = reads.submit(_read, make, blocks[number + 1])
                phase = "compute"
                pixels, columns = _parted(_computed(make, block, held), block)
            except Exception as error:
                task.failed, task.failure = block, _failure(phase, error)
                break
            spent = make.spent(held) if isinstance(make, Ahead) else {}
            now = time.monotonic()
            piece = Piece(block=block, columns=columns, seconds=now - begin, spent=spent)
            begin = now
            if not behind.follow(piece, pixels if keep else {}):
                break
        behind.settle()
    return task


class _Behind:
    """One block is written while the next is made; it counts as made when it is written."""

    def __init__(self, task: Task, writes: ThreadPoolExecutor) -> None:
        self._task, self._writes = task, writes
        self._piece: Piece | None = None
        self._written: Future[None] | None = None

    def follow(self, piece: Piece, pixels: dict[str, Columns]) -> bool:
        """Write a block when the one before is; False where that failed."""
        if not self.settle():
            return False
        self._piece = piece
        self._written = self._writes.submit(_write, self._task.fork, piece.block.first, pixels)
        return True

    def settle(self) -> bool:
        """Wait for what is being written."""
        piece, written, self._piece, self._written = self._piece, self._written, None, None
        if piece is None or written is None:
            return True
        if (error := written.exception()) is not None:
            self._task.failed, self._task.failure = piece.block, _failure("write", error)
            return False
        self._task.pieces.append(piece)
        return True


class Setup(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed
    """A log of each worker, with the block in every line."""

    name = "specmill"

    def __init__(self, folder: str) -> None:
        """folder: for the logs."""
        self._folder = folder
        self._handler: logging.Handler | None = None

    def setup(self, worker: Worker) -> None:
        """Begin the log."""
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        host = str(worker.address).rpartition("/")[2].replace(":", "-")
        handler = logging.FileHandler(Path(self._folder) / f"worker-{host}.log")
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(block)s %(name)s %(message)s")
        )
        handler.addFilter(_name_block)
        logging.getLogger().addHandler(handler)
        logging.getLogger("pipeline").setLevel(logging.INFO)
        logging.getLogger("storage").setLevel(logging.INFO)
        self._handler = handler
        logging.getLogger(__name__).info("%s ready", worker.address)

    def teardown(self, worker: Worker) -> None:
        """End it."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()


def _name_block(record: logging.LogRecord) -> bool:
    record.block = _block.get()
    return True


def _read(make: Make, block: Block) -> Any:
    _block.set(f"{block.first}:{block.last}")
    return make.read(block) if isinstance(make, Ahead) else None


def _computed(make: Make, block: Block, held: Any) -> dict[str, xr.Dataset]:
    _block.set(f"{block.first}:{block.last}")
    begin = time.monotonic()
    made: Made = make(block, held) if isinstance(make, Ahead) else make(block)
    groups = made if isinstance(made, Mapping) and not isinstance(made, xr.Dataset) else None
    found = dict(groups) if groups is not None else {next(iter(block.groups)): made}
    said = ", ".join(str(group) for group in found)
    logging.getLogger(__name__).info("%s: %.2f s", said, time.monotonic() - begin)
    return found  # type: ignore[return-value]  # a Dataset is a Mapping of its own


def _parted(
    made: Mapping[str, xr.Dataset], block: Block
) -> tuple[dict[str, Columns], dict[str, Columns]]:
    """Pixel arrays, which a worker writes, and columns, which the coordinator writes."""
    pixels: dict[str, Columns] = {}
    columns: dict[str, Columns] = {}
    for group, ds in made.items():
        if ds.sizes["spectrum"] != block.last - block.first:
            raise _ShapeError(f"{group}: {block} gave {ds.sizes['spectrum']} rows")
        lost = [str(name) for name, axis in ds.coords.items() if "spectrum" in axis.dims]
        if lost:
            # xarray makes a coordinate of a variable that is named like its axis.
            raise _ShapeError(f"{group}: {', '.join(lost)} would not be written; reset_coords()")
        wide = {name for name, v in ds.data_vars.items() if WORKER_DIMS & set(v.dims)}
        pixels[group] = {str(name): ds[name].to_numpy() for name in wide}
        columns[group] = {str(n): v.to_numpy() for n, v in ds.data_vars.items() if n not in wide}
        _condemn(columns[group], block)
    return pixels, columns


def _condemn(columns: Columns, block: Block) -> None:
    """Say of bad rows that they are."""
    for bad in block.bad:
        row = bad.row - block.first
        columns["status"][row], columns["reason_code"][row] = Status.QUARANTINED, bad.code
        if "reason" in columns:
            columns["reason"][row] = bad.text


def _write(fork: Fork, first: int, pixels: dict[str, Columns]) -> None:
    for group, arrays in pixels.items():
        fork.write_block(group, first, arrays)


class _ShapeError(ValueError):
    """What was made does not fit its group."""


def _failure(phase: Phase, error: BaseException) -> Failure:
    fatal = phase == "write" or isinstance(error, _ShapeError | MemoryError | StoreError)
    return Failure(phase=phase, text=str(error) or type(error).__name__, fatal=fatal)
