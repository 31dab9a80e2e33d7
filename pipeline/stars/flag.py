"""Flags of a star: what to know of what was measured, and when there is no number."""

from enum import IntFlag


class Flag(IntFlag):
    """What to know of one star."""

    TOO_FEW = 1
    "Too little of the band has data: NaN."
    VELOCITY_EDGE = 2
    "The velocity stands at the end of the range that was searched, or one beyond fits better: NaN."
    AMBIGUOUS = 4
    "Another velocity fits nearly as well."
    EDGE = 8
    "A parameter stands at the end of the templates: it has no error."
    NOT_CONVERGED = 16
    "The fit found no minimum in the iterations that it had, or the minimum has no width: NaN."
    BESIDE_HOLE = 32
    "A model next to the star's place in the grid is missing; its nearest neighbour stood in."


LOST = Flag.TOO_FEW | Flag.VELOCITY_EDGE | Flag.NOT_CONVERGED
"Flags that leave no number."
