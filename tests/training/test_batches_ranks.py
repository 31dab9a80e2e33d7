"""Ranks share the rows of an epoch: each row once, and as many for each, whatever chunks hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.test_batches import batches, rows
from training.augment import Augment
from training.batches import Batches
from training.kept import Kept


def shares(world: int, **options: Any) -> list[Batches]:
    return [batches(rank=rank, world=world, **options) for rank in range(world)]


def uneven(seed: int, n: int = 200) -> np.ndarray[Any, Any]:
    """Rows of chunks of 10 that hold 1 to 10 of them, or none."""
    random = np.random.default_rng(seed)
    held = random.permuted(np.arange(n).reshape(-1, 10), axis=1)
    return np.sort(np.concatenate([c[: random.integers(0, 11)] for c in held]))


@pytest.mark.parametrize("shuffle", [True, False])
@given(seed=st.integers(0, 1 << 30), epoch=st.integers(0, 1 << 20), world=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_every_row_comes_to_one_rank(shuffle: bool, seed: int, epoch: int, world: int) -> None:
    wanted = uneven(seed)
    found = [
        rows(share, epoch)
        for share in shares(world, n=200, rows=wanted, seed=seed, shuffle=shuffle, batch_size=7)
    ]
    assert sorted(row for share in found for row in share) == wanted.tolist()
    sizes = [len(share) for share in found]
    assert max(sizes) - min(sizes) <= 1


@given(seed=st.integers(0, 1 << 30), world=st.integers(2, 6), size=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_ranks_that_wait_for_each_other_have_equally_many_batches(
    seed: int, world: int, size: int
) -> None:
    wanted = uneven(seed)
    expected = len(wanted) // world // size
    if not expected:
        return
    how = {"n": 200, "rows": wanted, "seed": seed, "batch_size": size, "drop_last": True}
    for epoch in range(3):
        found = []
        for share in shares(world, **how):
            given = list(share.epoch(epoch))
            assert len(given) == len(share) == expected
            assert {len(batch.x) for batch in given} == {size}
            found += [round(float(s)) for batch in given for s in batch.scale]
        assert len(found) == len(set(found))
        # What is left out is less than a batch, and a row, of each.
        assert len(wanted) - len(found) < world * size + world


def test_one_chunk_is_enough_for_several_ranks() -> None:
    found = [rows(share, 1) for share in shares(3, rows=np.arange(10))]
    assert [len(share) for share in found] == [3, 3, 4]
    assert sorted(row for share in found for row in share) == list(range(10))


def test_an_order_is_another_in_another_epoch() -> None:
    first, second = ([set(rows(share, epoch)) for share in shares(3)] for epoch in (0, 1))
    assert first != second


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_epoch_goes_on_at_any_batch_of_a_share(rank: int) -> None:
    given = batches(n=200, rows=uneven(3), rank=rank, world=3, batch_size=4)
    complete = list(given.epoch(2))
    for first in range(len(complete) + 1):
        rest = list(given.epoch(2, first))
        assert len(rest) == len(complete) - first
        for actual, expected in zip(rest, complete[first:], strict=True):
            assert torch.equal(actual.x, expected.x)


@pytest.mark.parametrize(
    "augment", [Augment(noise="split"), Augment(masks=0.3, noise="split", redshift=200.0)], ids=str
)
def test_what_is_drawn_for_a_row_is_the_same_for_any_number_of_ranks(
    augment: Augment, tmp_path: Path
) -> None:
    # Three ranks cut chunks in parts, and write and read whole ones in one folder.
    how = {"n": 100, "augment": augment, "kept": Kept(tmp_path / "kept", 1 << 30)}

    def seen(world: int) -> list[bytes]:
        found = (batch for share in shares(world, **how) for batch in share.epoch(1))
        return sorted(
            b"".join(value.numpy().tobytes() for value in row)
            for batch in found
            for row in zip(batch.x, batch.weight, batch.scale, batch.z, strict=True)
        )

    alone = seen(1)
    assert len(set(alone)) == 100
    assert seen(3) == seen(7) == alone


def test_too_few_rows_for_the_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="100 rows do not fill a batch of 64 for each of 2 ranks"):
        batches(batch_size=64, world=2, drop_last=True)
    with pytest.raises(ValueError, match="for each of 101 ranks"):
        batches(world=101)
