"""Which lines are fitted together, and the unknowns that all lines of a spectrum share.

A block is a stretch of spectrum around lines that blend; its lines stand in slots. Blocks with as
many slots are a family, and are handled at once. Unknowns of one spectrum: a flux for each line
that is not tied to another, then velocity and variance of the Balmer and helium lines, then of the
forbidden ones. Axes: B blocks and S slots of a family, X free lines, U = X + 4 unknowns.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.lines.line_list import LINES, Line
from storage.velocity import C_KMS

_BLEND_KMS = 1000.0
_FREE = [line.name for line in LINES if line.tie is None]
FREE = len(_FREE)
"X."
KINEMATICS = 4
"Velocity and variance of Balmer lines, then of forbidden ones."
UNKNOWNS = FREE + KINEMATICS
"U."
_FLUXES = [*range(FREE), UNKNOWNS]


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Blocks of as many slots, as tables on one device."""

    lines: Tensor
    "(B, S) int64 numbers of the lines."
    first: Tensor
    "(B,) float64 rest wavelength that velocities of a block are relative to; vacuum A."
    span: Tensor
    "(B, 2) float64 first and last velocity of its lines, km/s."
    ratio: Tensor
    "(B, S) float32 that wavelength over the slot's own."
    to_unknowns: Tensor
    """(B C C, (U + 1) (U + 1)) float64 sums blocks' normal equations to those of a spectrum; C
    columns are the slots' fluxes, velocities and variances, and the residual."""
    to_fluxes: Tensor
    "(B D D, (X + 1) (X + 1)) float64 the same of slots' fluxes and the residual alone."
    to_free: Tensor
    "(B S, X) float64 share that a slot has of the flux of each free line."

    @property
    def slots(self) -> int:
        """How many lines a block has."""
        return self.lines.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """All blocks, and what is known of each line, on one device."""

    families: tuple[Family, ...]
    free: Tensor
    "(line,) number of the free line whose flux it has."
    share: Tensor
    "(line,) float64 what that flux is multiplied by."
    group: Tensor
    "(line,) 0 for Balmer and helium lines, 1 for forbidden ones."
    free_group: Tensor
    "(X,) the same of free lines."
    tied: Tensor
    "(line,) bool."
    wavelength: Tensor
    "(line,) float64 vacuum A."


@lru_cache(maxsize=4)
def layout(device: torch.device) -> Layout:
    """The layout of `LINES` on a device."""
    blocks = _blocks()
    sizes = sorted({len(block) for block in blocks})
    free, share = zip(*(_free(line) for line in LINES), strict=True)
    tables = {
        "free": np.array(free),
        "share": np.array(share),
        "group": np.array([_group(line) for line in LINES]),
        "free_group": np.array([_group(line) for line in LINES if line.tie is None]),
        "tied": np.array([line.tie is not None for line in LINES]),
        "wavelength": np.array([line.wavelength for line in LINES]),
    }
    return Layout(
        families=tuple(
            _family(np.array([b for b in blocks if len(b) == size]), device) for size in sizes
        ),
        **{name: torch.from_numpy(table).to(device) for name, table in tables.items()},
    )


def _blocks() -> list[list[int]]:
    """Numbers of the lines of each block."""
    blocks: list[list[int]] = [[0]]
    for new in range(1, len(LINES)):
        last = LINES[blocks[-1][-1]].wavelength
        if (LINES[new].wavelength / last - 1) * C_KMS < _BLEND_KMS:
            blocks[-1].append(new)
        else:
            blocks.append([new])
    return blocks


def _family(lines: NDArray[np.intp], device: torch.device) -> Family:
    rest = np.array([line.wavelength for line in LINES])[lines]
    first = rest[:, 0]
    tables = {
        "lines": lines,
        "first": first,
        "span": np.stack([0 * first, (rest[:, -1] / first - 1) * C_KMS], axis=1),
        "ratio": (first[:, None] / rest).astype(np.float32),
        "to_unknowns": _squared(_columns(lines)),
        "to_fluxes": _squared(_columns(lines)[:, _flux_columns(lines.shape[1])][:, :, _FLUXES]),
        "to_free": _columns(lines)[:, : lines.shape[1], :FREE].reshape(-1, FREE),
    }
    return Family(**{name: torch.from_numpy(table).to(device) for name, table in tables.items()})


def _columns(lines: NDArray[np.intp]) -> NDArray[np.float64]:
    """What each column of a block is of each unknown and the residual, (B, C, U + 1)."""
    blocks, slots = lines.shape
    one = np.zeros((blocks, 3 * slots + 1, UNKNOWNS + 1))
    for b in range(blocks):
        for s in range(slots):
            line = LINES[lines[b, s]]
            free, share = _free(line)
            one[b, s, free] = share
            for k in (0, 1):
                one[b, (k + 1) * slots + s, FREE + 2 * _group(line) + k] = 1
        one[b, -1, -1] = 1
    return one


def _flux_columns(slots: int) -> list[int]:
    return [*range(slots), 3 * slots]


def _squared(one: NDArray[np.float64]) -> NDArray[np.float64]:
    both = np.einsum("bcu,bdw->bcduw", one, one)
    return np.asarray(both.reshape(-1, one.shape[2] ** 2))


def _group(line: Line) -> int:
    return int(line.kind == "forbidden")


def _free(line: Line) -> tuple[int, float]:
    """The free line whose flux a line has, and its share of it."""
    name, share = line.tie or (line.name, 1.0)
    return _FREE.index(name), share
