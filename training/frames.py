"""Frames: the ways of seeing a spectrum that have a name; docs/frames.md says why each is so."""

import difflib
import math

from storage.grid import Grid
from training.frame import Frame

_NAMED = (
    # Camilleri+2025.
    Frame(),
    # Scourfield+2023: 825 bins, the first and the last at the ends; the window is all of them.
    Frame(
        name="s23",
        grid=Grid(
            kind="log",
            start=math.log10(3700),
            step=math.log10(7900 / 3700) / 824,
            size=825,
        ),
        window=(3699, 7903),
        norm="l2",
    ),
    # Melchior+2023: where SDSS observes; the decoder shifts what it makes.
    Frame(
        name="spender",
        grid=Grid(kind="log", start=3.578, step=1e-4, size=3921),
        window=(5300, 5850),
        rest=False,
        window_rest=True,
        norm="median",
    ),
    # Pal & Dobos 2024: 4096 pixels that fill 7100-8850 A; reddened, as their truth is.
    Frame(
        name="star",
        grid=Grid(kind="linear", start=7100 + 1750 / 8192, step=1750 / 4096, size=4096),
        window=(7100, 8850),
        dust=None,
        rest=False,
        norm="median",
        level=0.5,
    ),
    # What DESI (3600-9824 A) sees of galaxies at any z up to 0.26.
    Frame(name="desi", grid=Grid(kind="linear", start=3500, step=0.8, size=5376)),
    # What the arms of WEAVE at low resolution (3660-6060, 5790-9590 A) see at 0.05-0.24.
    Frame(
        name="weave-blue",
        grid=Grid(kind="linear", start=3500, step=0.5, size=2800),
        window=(4400, 4800),
    ),
    Frame(name="weave-red", grid=Grid(kind="linear", start=5520, step=0.5, size=4280)),
)
FRAMES = {frame.name: frame for frame in _NAMED}


def named(name: str) -> Frame:
    """The frame of that name: 'fs' is the full spectrum of Camilleri+2025.

    Raises
    ------
    ValueError
        When there is none; lists the known.
    """
    if name not in FRAMES:
        near = difflib.get_close_matches(name, FRAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"frame {name!r} is unknown; known: {', '.join(sorted(FRAMES))}{hint}")
    return FRAMES[name]
