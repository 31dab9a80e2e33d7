"""Places: bins in which a model was tried, inside and outside its footprint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from training.verdict import REFERENCE

AXES = ("z", "sigma_v", "snr")
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a model did in one bin of an axis, or on another survey."""

    axis: str
    "One of `AXES`, or 'survey'."
    low: float
    "Lower edge; 0 for a survey."
    high: float
    "Upper edge; 0 for a survey."
    name: str
    "In words."
    worth: Mapping[str, float]
    "Delta_O over the linear reference, by index; empty where there is none."
    noise: Mapping[str, float]
    "Delta_O over the noise, by index."
    error: Mapping[str, float]
    "Bootstrap errors of `worth`."
    why: str = ""
    "Why there is none."

    @property
    def holds(self) -> bool:
        """Whether every index is within the limit of the reference, and no worse than the noise."""
        near = all(value <= REFERENCE for value in self.worth.values())
        return bool(self.worth) and near and all(value <= 1 for value in self.noise.values())


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of a model."""

    path: Path
    "Its checkpoint."
    present: Mapping[str, Range | None]
    "By axis, the footprint that it has; None: not bounded."
    at: Range
    "S/N of the bins of all axes but that of S/N."
    places: tuple[Place, ...]
    "All bins."

    @property
    def tried(self) -> dict[str, Range | None]:
        """By axis, from where to where there are bins."""
        found: dict[str, Range | None] = {}
        for axis in AXES:
            of = [place for place in self.places if place.axis == axis]
            found[axis] = (of[0].low, of[-1].high) if of else None
        return found

    @property
    def follows(self) -> dict[str, Range | None]:
        """By axis, the bins without a gap around the footprint that hold; None: none does."""
        return {
            axis: _run([p for p in self.places if p.axis == axis], self.present[axis])
            for axis in AXES
        }


def _run(places: list[Place], present: Range | None) -> Range | None:
    """The longest run of bins that hold, of those that touch the footprint where there is any."""
    runs: list[Range] = []
    for place in places:
        if not place.holds:
            continue
        first = runs.pop()[0] if runs and runs[-1][1] == place.low else place.low
        runs.append((first, place.high))
    if present is not None:
        runs = [run for run in runs if run[0] < present[1] and run[1] > present[0]]
    return max(runs, key=lambda run: run[1] - run[0], default=None)
