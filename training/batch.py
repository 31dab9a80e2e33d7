"""Batch: spectra as a model sees them, and what is done with them as a whole.

Axes: N spectra, P frame pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from training.device import upload


@dataclass(frozen=True, kw_only=True)
class Batch:
    """N spectra as a model sees them; x * scale is flux density on the axis of a frame.

    It is dereddened where the frame says so. The values are those of the observed flux density:
    no factor (1 + z) is applied, since it would cancel in the normalisation.
    """

    x: Tensor
    "(N, P) float32; divided by scale; pixels without data are bridged linearly, held at the ends."
    weight: Tensor
    """(N, P) float32; inverse variance that independent pixels would need for sums over
    neighbours to have the right error: rebinned pixels share their noise, and a model that
    trusted each by itself would trust them twice. 0 where there is no data."""
    scale: Tensor
    "(N,) float32; what x is divided by, in the survey's unit; 1 where not ok."
    z: Tensor
    "(N,) float64; redshift, 0 where there is none."
    ok: Tensor
    """(N,) bool; False where z or ebv is not known, less than half of the window has data, or its
    mean is not above 0: then x and weight are 0."""
    target: Tensor | None = None
    "(N, P) float32; what x should become, on the scale of x; None: x itself."
    target_weight: Tensor | None = None
    "(N, P) float32; inverse variance of the target, 0 where there is none; None: weight."

    @property
    def wanted(self) -> tuple[Tensor, Tensor]:
        """Target and its inverse variance, each (N, P)."""
        target = self.x if self.target is None else self.target
        return target, self.weight if self.target_weight is None else self.target_weight

    @property
    def missing(self) -> Tensor:
        """Share of frame pixels without data, (N,) float32."""
        return (self.weight <= 0).float().mean(dim=1)


def take(batch: Batch, rows: slice | Tensor) -> Batch:
    """Those rows of a batch."""
    return each(batch, lambda value: value[rows])


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return each(batch, lambda value: upload(value, device))


def join(parts: Sequence[Batch]) -> Batch:
    """Batches one after another."""
    if len(parts) == 1:
        return parts[0]
    names = [f.name for f in fields(parts[0]) if getattr(parts[0], f.name) is not None]
    return replace(
        parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )


def each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every array changed."""
    changed = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{k: change(v) for k, v in changed.items() if v is not None})
