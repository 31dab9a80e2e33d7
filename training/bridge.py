"""Bridging: pixels without data get the line between the good pixels beside them."""

import torch
from torch import Tensor


def bridged(x: Tensor, weight: Tensor) -> Tensor:
    """x with every gap filled, row by row.

    Parameters
    ----------
    x : (N, P) float32
        Values; finite.
    weight : (N, P) float32
        0 where there is no data.

    Returns
    -------
    (N, P) float32
        Linear between good pixels, constant beyond the first and the last; a row without any
        good pixel is 0.
    """
    pixels = x.shape[1]
    values = x.flatten()
    missing = (weight.flatten() == 0).nonzero().squeeze(1)
    if len(missing) == 0:
        return x
    # A run of missing pixels begins where the one before is not missing, or in another row.
    begins = torch.ones_like(missing, dtype=torch.bool)
    begins[1:] = (missing[1:] - missing[:-1] > 1) | (missing[1:] % pixels == 0)
    run = begins.cumsum(0) - 1
    near, far = missing[begins] - 1, missing[begins.roll(-1)] + 1
    # Beyond the row there is nothing: the other end serves for both, or 0 for an empty row.
    has_near, has_far = (near + 1) % pixels != 0, far % pixels != 0
    start, end = (values[place.clamp(0, len(values) - 1)] for place in (near, far))
    start = torch.where(has_near, start, torch.where(has_far, end, 0))
    end = torch.where(has_far, end, start)
    way = (missing - near[run]) / (far - near)[run]
    line = torch.lerp(start[run], end[run], way)
    return values.index_copy(0, missing, line).view_as(x)
