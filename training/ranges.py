"""Ranges: what a hyper-parameter may be, and a random draw of all of them.

Trial k of a search depends on (seed, k) alone: a search of 100 begins with the trials of one of 20.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, model_validator

Number = int | float


class Range(BaseModel):
    """What one hyper-parameter may be: one of `choice`, `uniform` and `log`.

    Examples
    --------
    >>> units = Range(uniform=(100, 1000), step=100, layers=(3, 3))
    >>> drawn = draw({"units": units}, seed=1, trial=0)["units"]
    >>> sorted(drawn, reverse=True) == drawn, len(drawn)
    (True, 3)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: tuple[Any, ...] = ()
    "Any of these values."
    uniform: tuple[Number, Number] | None = None
    "Between two numbers, both included."
    log: tuple[Number, Number] | None = None
    "Between two numbers above 0, evenly in the logarithm."
    step: NonNegativeFloat | int = 0
    "Of `uniform`: only the first number, and whole steps above it; 0 is all of them."
    layers: tuple[PositiveInt, PositiveInt] | None = None
    "Of `uniform` with a step: a list, so many numbers long, each no larger than the one before."

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        kinds = [bool(self.choice), self.uniform is not None, self.log is not None]
        if sum(kinds) != 1:
            raise ValueError("a range is one of choice = [...], uniform = [...], log = [...]")
        if (self.step or self.layers) and self.uniform is None:
            raise ValueError("step and layers are of uniform = [first, last]")
        if self.layers and not self.step:
            raise ValueError("layers: give the step between two numbers of units")
        for name in ("uniform", "log", "layers"):
            ends = getattr(self, name)
            if ends is not None and not ends[0] <= ends[1]:
                raise ValueError(f"{name} = {list(ends)}: the first is the lower end")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError(f"log = {list(self.log)}: expected numbers above 0")
        return self

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        if self.choice:
            return self.choice[int(rng.integers(len(self.choice)))]
        if self.log is not None:
            return float(f"{np.exp(rng.uniform(*np.log(self.log))):.6g}")
        assert self.uniform is not None
        if not self.step:
            return float(f"{rng.uniform(*self.uniform):.6g}")
        grid = self._grid()
        if self.layers is None:
            return grid[int(rng.integers(len(grid)))]
        found: list[Number] = []
        for _ in range(int(rng.integers(self.layers[0], self.layers[1] + 1))):
            fit = [value for value in grid if not found or value <= found[-1]]
            found.append(fit[int(rng.integers(len(fit)))])
        return found

    def _grid(self) -> list[Number]:
        assert self.uniform is not None
        first, last = self.uniform
        count = int(np.floor((last - first) / self.step + 1e-9)) + 1
        # 0.1 * 3 is 0.30000000000000004: a person wrote 0.3.
        values = [round(first + number * self.step, 12) for number in range(count)]
        whole = all(float(value).is_integer() for value in (first, self.step))
        return [int(value) for value in values] if whole else values


def draw(ranges: Mapping[str, Range], seed: int, trial: int) -> dict[str, Any]:
    """The values of one trial, by the names of the ranges."""
    rng = np.random.default_rng([seed, trial])
    return {name: ranges[name].draw(rng) for name in sorted(ranges)}
