"""Batches: the rows of a survey as shuffled batches on a frame, the same ones for the same seed.

Whole chunks are read in permuted order and rows are shuffled within a window of a few chunks: as
good as a full shuffle for learning, and ten times as fast as reading rows at random.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from training.batch import Batch, join, size, take
from training.frame import Frame
from training.source import NAMES, SpectraSource


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Rows of a source, as batches on a frame, one epoch after another.

    Raises
    ------
    ValueError
        When there are no rows, or, with `drop_last` or several ranks, not a batch for each rank.
    """

    source: SpectraSource
    "Where the rows are."
    rows: NDArray[np.int64]
    "(n,) absolute rows to use."
    frame: Frame
    "How the model sees them."
    batch_size: int
    "Spectra a batch."
    seed: int = 0
    "Of the order."
    rank: int = 0
    "Which share of the chunks is this one's."
    world: int = 1
    "Into how many shares they go."
    drop_last: bool = False
    "Leave out the incomplete batch; every rank then gives equally many."
    shuffle: bool = True
    "False gives the rows in ascending order, always the same."
    window: int = 4
    "Chunks that rows are mixed in."
    memory_bytes: int = 1 << 30
    "Chunks on the frame that are kept for the next epoch, up to so many bytes."
    _kept: dict[int, Batch] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", np.unique(np.asarray(self.rows, dtype=np.int64)))
        if not self.rows.size:
            raise ValueError("batches: no rows to train on; check [sample] and the split shares")
        if not min(self._shares(0)) // (self.batch_size if self.drop_last else 1):
            raise ValueError(
                f"batches: {self.rows.size} rows in {self._chunks().size} chunks do not fill a "
                f"batch of {self.batch_size} for each of {self.world} ranks; use a smaller batch "
                "or fewer workers"
            )

    def __len__(self) -> int:
        """Batches an epoch, at the least: shares differ a little from epoch to epoch."""
        return self._count(0)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, in an order that depends on (seed, number) alone."""
        count = self._count(number)
        for given, batch in enumerate(self._sliced(number)):
            if given == count:
                return
            yield batch

    def _chunks(self) -> NDArray[np.int64]:
        return np.unique(self.rows // self.source.chunk)

    def _order(self, number: int) -> NDArray[np.int64]:
        chunks = self._chunks()
        return _random(self.seed, number).permutation(chunks) if self.shuffle else chunks

    def _count(self, number: int) -> int:
        shares = self._shares(number)
        if self.drop_last:
            # Ranks that wait for each other at every batch must have equally many.
            return min(shares) // self.batch_size
        return -(-shares[self.rank] // self.batch_size)

    def _shares(self, number: int) -> list[int]:
        """Rows of each rank."""
        chunks, counts = np.unique(self.rows // self.source.chunk, return_counts=True)
        counted = counts[np.searchsorted(chunks, self._order(number))]
        return [int(counted[rank :: self.world].sum()) for rank in range(self.world)]

    def _sliced(self, number: int) -> Iterator[Batch]:
        left: Batch | None = None
        for batch in self._windows(number):
            batch = batch if left is None else join([left, batch])
            whole = batch.x.shape[0] // self.batch_size * self.batch_size
            for first in range(0, whole, self.batch_size):
                yield take(batch, slice(first, first + self.batch_size))
            left = take(batch, slice(whole, None))
        if left is not None and left.x.shape[0]:
            yield left

    def _windows(self, number: int) -> Iterator[Batch]:
        mine = self._order(number)[self.rank :: self.world].tolist()
        groups = [mine[i : i + self.window] for i in range(0, len(mine), self.window)]
        random = _random(self.seed, number, self.rank)
        # The next window is read while the model works on this one.
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(self._load, groups[0])
            for following in [*groups[1:], None]:
                batch = coming.result()
                if following is not None:
                    coming = reader.submit(self._load, following)
                if self.shuffle:
                    batch = take(batch, torch.from_numpy(random.permutation(len(batch.x))))
                yield batch

    def _load(self, chunks: Sequence[int]) -> Batch:
        return join([self._kept.get(chunk) or self._read(chunk) for chunk in chunks])

    def _read(self, chunk: int) -> Batch:
        start = chunk * self.source.chunk
        wanted = self.rows[(self.rows >= start) & (self.rows < start + self.source.chunk)]
        first, last = int(wanted[0]), int(wanted[-1]) + 1
        arrays = self.source.read(first, last)
        mapper = self.frame.on(self.source.grid)
        flux, ivar, z, ebv = (arrays[name][wanted - first] for name in NAMES)
        batch = mapper.to(flux, ivar, z, ebv)
        if size(batch) + sum(size(kept) for kept in self._kept.values()) <= self.memory_bytes:
            self._kept[chunk] = batch
        return batch


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))
