"""Instrument: how broad it makes lines and starlight, as far as the line spread is known.

Surveys give no line spread where they have no data. Axes: N spectra, L pixels, A places, B blocks
and S slots of a family.
"""

import torch
from torch import Tensor

from pipeline.lines.axis import Axis
from pipeline.lines.layout import Family
from pipeline.lines.templates import FINE
from storage.velocity import C_KMS

_BESIDE = 8
"Pixels on either side in which a line spread is looked for."


def at_lines(lsf: Tensor | None, axis: Axis, z: Tensor, to: Family) -> Tensor:
    """Sigma of the instrument (N, B, S) at each line of a family, km/s; 0 where it is not known.

    lsf : (N, L) or (L,) float32 pixels, 0 where it is not known.
    """
    shape = (len(z), *to.ratio.shape)
    if lsf is None:
        return torch.zeros(shape, device=z.device)
    centre = axis.seen(to.first[:, None] / to.ratio.double() * (1 + z[:, None, None]))
    pixel = axis.pixel(centre).round().clamp(0, axis.grid.size - 1).long()
    width = torch.from_numpy(axis.grid.widths).to(z.device)[pixel]
    sigma = _near(lsf.expand(len(z), -1), pixel.flatten(1)).view(shape)
    return (sigma * width / centre * C_KMS).float()


def _near(lsf: Tensor, pixel: Tensor) -> Tensor:
    """Line spread (N, L) at pixels (N, A), or beside them: a line may lack its middle alone."""
    steps = torch.arange(-_BESIDE, _BESIDE + 1, device=pixel.device)
    columns = (pixel[:, :, None] + steps).clamp(0, lsf.shape[1] - 1)
    beside = lsf.gather(1, columns.flatten(1)).view(columns.shape)
    here = beside[:, :, _BESIDE]
    mean = beside.sum(-1) / beside.sign().sum(-1).clamp(min=1)
    return torch.where(here > 0, here, mean)


def blur(lsf: Tensor | None, ivar: Tensor, axis: Axis, z: Tensor) -> Tensor:
    """Variance (N,) that pixels and instrument give to starlight, km2/s2.

    It is the mean over pixels with data that starlight is fitted on; where no line spread is
    known, that of pixels alone.
    """
    grid = axis.grid
    pixel = torch.from_numpy((grid.widths / grid.wavelength * C_KMS) ** 2).float().to(z.device)
    ends = axis.seen(torch.from_numpy(FINE.edges[[0, -1]]).to(z.device) * (1 + z[:, None]))
    first, last = axis.pixel(ends)[:, :, None].unbind(1)
    place = torch.arange(grid.size, device=z.device)
    here = ((place > first) & (place < last)).float() * ivar.sign()
    whole = _mean(here, pixel / 12)
    if lsf is None:
        return whole
    return whole + _mean(here * lsf.sign(), pixel * lsf.square())


def _mean(weight: Tensor, values: Tensor) -> Tensor:
    return (weight * values).sum(1).double() / weight.sum(1).clamp(min=1)
