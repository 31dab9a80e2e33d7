"""Kinds of fault: each disturbs a run and sees that it ends as is promised.

What a kind gives back are the rows that must be quarantined, and those that were made once more.
"""

from collections.abc import Callable

from tests.faults import deaths, shortages
from tests.faults.trial import NONE, Rows, Trial

Kind = Callable[[Trial], Rows]


def nothing(trial: Trial) -> Rows:
    """No fault: what a broken engine shows by itself."""
    trial.end(trial.start())
    return NONE


KINDS: dict[str, Kind] = {
    do.__name__.replace("_", "-"): do for do in (*deaths.KINDS, *shortages.KINDS)
}
