"""Ranks: what the processes of one training run do together; alone, a process is rank 0 of 1."""

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many processes learn together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mine() -> int:
    """Which of them this one is."""
    return dist.get_rank() if world() > 1 else 0


def all_sum(value: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if world() > 1:
        dist.all_reduce(value)
    return value


def from_first(value: Tensor) -> Tensor:
    """What rank 0 has, in place, on all ranks."""
    if world() > 1:
        dist.broadcast(value, src=0)
    return value


def anyone(*said: bool, device: torch.device) -> list[bool]:
    """Each of some answers, True when it is so on any rank; alone, nothing is asked of a GPU."""
    if world() == 1:
        return list(said)
    votes = torch.tensor(said, dtype=torch.int32, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [bool(vote) for vote in votes.tolist()]


def gather(value: Tensor) -> Tensor:
    """Each rank's value, (ranks, ...), on rank 0; the others get their own alone."""
    if world() == 1:
        return value[None]
    first = mine() == 0
    parts = [torch.empty_like(value) for _ in range(world())] if first else None
    dist.gather(value.contiguous(), parts, dst=0)
    return value[None] if parts is None else torch.stack(parts)
