"""Masks: where starlight is not fitted, because lines of gas may be there."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.lines.line_list import LINES
from pipeline.lines.templates import FIT
from storage.velocity import C_KMS

MASKED_KMS, OTHERS_KMS = 500.0, 250.0
"""Half width of what is left out around each emission line; around those that are not measured,
which are weak, and whose wings tell of the stars."""
OTHERS = (
    3798.98, 3836.47, 3890.15, 4472.73, 4712.58, 4741.45, 4923.31, 5200.53, 5578.89, 5891.58,
    5897.56, 6313.81, 6679.99, 7067.14, 7137.76,
)  # fmt: skip
"""Lines that are masked but not measured, vacuum A: higher Balmer lines, HeI, [ArIV], [NI],
[SIII], [ArIII], and sodium between the stars."""


@lru_cache(maxsize=4)
def outside_lines(device: torch.device) -> Tensor:
    """(R,) float32: 0 near an emission line, else 1."""
    centres = np.array([line.wavelength for line in LINES] + list(OTHERS))
    reach = np.repeat([MASKED_KMS, OTHERS_KMS], [len(LINES), len(OTHERS)]) * centres / C_KMS
    low, high = FIT.edges[:-1], FIT.edges[1:]
    near = (high > (centres - reach)[:, None]) & (low < (centres + reach)[:, None])
    return torch.from_numpy(~near.any(axis=0)).float().to(device)
