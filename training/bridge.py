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

    Notes
    -----
    Good and missing pixels are listed in one order over all rows. Before missing pixel number i,
    at place m, lie m - i good ones, so its neighbours are found without a search.
    """
    pixels = x.shape[1]
    good = weight.flatten().nonzero().squeeze(1)
    missing = (weight.flatten() == 0).nonzero().squeeze(1)
    if len(missing) == 0 or len(good) == 0:
        return x * weight.sign()
    after = missing - torch.arange(len(missing), device=x.device)
    left = good[(after - 1).clamp_(min=0)]
    right = good[after.clamp_(max=len(good) - 1)]
    row = missing // pixels
    has_left = (left < missing) & (left // pixels == row)
    has_right = (right > missing) & (right // pixels == row)
    # With one neighbour both are that one; with none the row is empty.
    near, far = torch.where(has_left, left, right), torch.where(has_right, right, left)
    values = x.flatten()
    way = (missing - near) / (far - near)
    line = torch.lerp(values[near], values[far], torch.where(has_left & has_right, way, 0))
    return values.index_put((missing,), line * (has_left | has_right)).view_as(x)
