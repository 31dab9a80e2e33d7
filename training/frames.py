"""Frames: the ways of seeing a spectrum that have a name."""

from training.frame import Frame

FRAMES = {frame.name: frame for frame in (Frame(),)}


def named(name: str) -> Frame:
    """The frame of that name: 'fs' is the full spectrum of Camilleri+2025."""
    if name not in FRAMES:
        raise ValueError(f"frame {name!r} is unknown; known: {', '.join(sorted(FRAMES))}")
    return FRAMES[name]
