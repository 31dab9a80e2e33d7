"""Lessons: spectra and what they should become, as they are read and as a frame shows them.

Axes: N spectra, L observed pixels, P frame pixels.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from training.augment import Augment
from training.batch import Batch
from training.frame import Mapper
from training.norm import NOISELESS
from training.source import NAMES, Arrays, SpectraSource

Rows = NDArray[np.int64]


def read(source: SpectraSource, rows: Rows, repeats: Rows | None, augment: Augment) -> Arrays:
    """Rows of one chunk with their target, if that is of the survey.

    Parameters
    ----------
    rows, repeats : (N,) int
        Ascending; the row that each should become, for target 'repeat'.

    Returns
    -------
    dict
        flux and ivar (N, L), z and ebv (N,); target and target_ivar (N, L) unless the target is
        the input. The latter is 1e12 or 0, known or not, of a target without noise.
    """
    first, last = int(rows[0]), int(rows[-1]) + 1
    # Rows without a gap are not copied.
    which = slice(None) if last - first == len(rows) else rows - first
    found = source.read(first, last)
    found = {name: found[name][which] for name in NAMES}
    if repeats is not None:
        again = source.pick(repeats)
        found |= {"target": again["flux"], "target_ivar": again["ivar"]}
    if augment.target in ("truth", "model"):
        target = source.exact(augment.target, first, last)[which]
        known = known_pixels(target)
        found |= {
            "target": np.where(known, target, 0),
            "target_ivar": np.float32(NOISELESS) * known,
        }
    return found


def framed(arrays: Arrays, mapper: Mapper, exact: bool) -> Batch:
    """Spectra on the frame; the target as well, on the scale of the input.

    The target's weight is its inverse variance on that scale; of an exact target, 1 where it is
    known and 0 where not. A spectrum without a target is not ok: it does not teach.
    """
    flux, ivar, z, ebv = (arrays[name] for name in NAMES)
    batch = mapper.to(flux, ivar, z, ebv)
    if "target" not in arrays:
        return batch
    wanted = mapper.to(arrays["target"], arrays["target_ivar"], z, ebv)
    ok = batch.ok & wanted.ok
    ratio = (wanted.scale / batch.scale)[:, None]
    weight = wanted.weight.sign() if exact else wanted.weight / ratio.square()
    return replace(
        batch,
        x=batch.x * ok[:, None],
        weight=batch.weight * ok[:, None],
        scale=torch.where(ok, batch.scale, 1),
        ok=ok,
        target=wanted.x * (ratio * ok[:, None]),
        target_weight=weight * ok[:, None],
    )


def known_pixels(target: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a flux without noise is known, (N, L): a spectrum of light is 0 nowhere."""
    known: NDArray[np.bool_] = np.isfinite(target) & (target != 0)
    return known


def require_target(source: SpectraSource, rows: Rows, augment: Augment) -> None:
    """Raise ValueError when a source has no exact target for the first, middle and last chunk."""
    if augment.target not in ("truth", "model"):
        return
    for row in rows[[0, len(rows) // 2, -1]].tolist():
        first = row // source.chunk * source.chunk
        if known_pixels(source.exact(augment.target, first, first + source.chunk)).any():
            return
    raise ValueError(
        f"target {augment.target!r} of [augment] is 0 in all spectra that were looked at: the "
        "survey has none; use another target"
    )


def repeated(rows: Rows, objects: NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """Rows that share their object with others of them, and for each the next one, in a circle.

    Raises
    ------
    ValueError
        When there are none.
    """
    known = rows[objects[rows] > 0]
    known = known[np.argsort(objects[known], kind="stable")]
    _, begin, count = np.unique(objects[known], return_index=True, return_counts=True)
    following = np.roll(known, -1)
    following[begin + count - 1] = known[begin]
    several = np.repeat(count > 1, count)
    if not several.any():
        raise ValueError(
            f"target 'repeat' of [augment]: none of {len(rows)} rows shows an object that another "
            "row shows too; use target 'input' with noise 'split'"
        )
    ascending = np.argsort(known[several])
    return known[several][ascending], following[several][ascending]
