"""Taken: the footprint that followed from mocks, taken into use.

A footprint is part of what a checkpoint is, so another one makes another checkpoint: the same
weights under a new digest, to which the model's names lead from then on. Its products are groups
of their own, and what was measured on the old ones stays what it was.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from pipeline.places import AXES, Found, Range
from training import checkpoint, registry
from training.footprint import Footprint

logger = logging.getLogger(__name__)

NOTE = "footprint"
"In `training` of the card of a checkpoint: the footprint that its training rows had."


def take(found: Found) -> Path:
    """Save a model with the footprint that follows; gives its new folder.

    Raises
    ------
    ValueError
        When no bin around its footprint holds, or it has no footprint.
    """
    loaded = checkpoint.load(found.path)
    learnt = loaded.footprint
    if learnt is None:
        raise ValueError(f"{found.path}: the checkpoint has no footprint; train the model again")
    said = dict(loaded.card.training)
    said.setdefault(NOTE, learnt.model_dump(mode="json"))
    about = loaded.card.model_copy(update={"footprint": footprint(found, learnt), "training": said})
    path = checkpoint.save(found.path.parent, loaded.name, loaded.model, about)
    for file in found.path.iterdir():
        # Its verdict, its table of errors and what was found outside are those of the weights.
        if not (path / file.name).exists():
            shutil.copy2(file, path / file.name)
    for alias, target in registry.aliases(path.parent).items():
        if target == found.path.name:
            registry.set_alias(path.parent, alias, path)
    return path


def footprint(found: Found, learnt: Footprint) -> Footprint:
    """A footprint with the ends that were found; where nothing was tried it ends as before.

    Velocity dispersions stay unbounded: as pipelines measure them they scatter by tens of km/s,
    and a bound would put galaxies out by their noise. A route may ask for them.

    Raises
    ------
    ValueError
        When no bin around it holds.
    """
    ends = {axis: _ends(found, axis, getattr(learnt, name)) for axis, name in _NAMES.items()}
    bounded = found.follows["sigma_v"]
    if bounded != found.tried["sigma_v"]:
        said = "nowhere" if bounded is None else f"in {bounded[0]:g}-{bounded[1]:g} km/s"
        logger.warning(
            "%s holds %s only; a footprint does not look at the noisy vdisp of a survey: let the "
            "rule of a route ask for it",
            found.path.name,
            said,
        )
    low, high = ends["snr"]
    top, ceiling = found.tried["snr"], learnt.snr_ceiling
    if top is not None and high < top[1]:
        ceiling = high if ceiling is None else min(ceiling, high)
    made: dict[str, Any] = learnt.model_dump() | {
        "z": ends["z"],
        # Only its lower end bounds.
        "snr_g": (low, max(low, learnt.snr_g[1])),
        "snr_ceiling": ceiling,
    }
    return Footprint.model_validate(made)


_NAMES = {"z": "z", "snr": "snr_g"}


def _ends(found: Found, axis: str, present: Range) -> Range:
    assert axis in AXES
    tried, follows = found.tried[axis], found.follows[axis]
    if tried is None:
        return present
    if follows is None:
        raise ValueError(
            f"{found.path}: on mocks the model holds nowhere around its footprint in {axis} "
            f"{present[0]:.4g}-{present[1]:.4g}, so no footprint follows; train it longer, or do "
            "not use it"
        )
    low = min(present[0], follows[0]) if follows[0] == tried[0] else follows[0]
    high = max(present[1], follows[1]) if follows[1] == tried[1] else follows[1]
    return low, high
