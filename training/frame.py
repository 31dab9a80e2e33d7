"""Frame: how a model sees a spectrum, and the way there and back.

Observed flux -> dereddened (observed frame) -> rest wavelengths -> rebinned -> a level of 1. The
frame is part of what a model learnt: its digest names every product that lies on it.

Axes: N spectra, L observed pixels, P frame pixels.
"""

import hashlib
import json
import math
from functools import lru_cache
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Tensor

from storage.dust import Law, curve
from storage.grid import Grid
from storage.resample import rebinner
from training import norm
from training.batch import Batch
from training.bridge import bridged
from training.parts import joined, parts, tensor

Redshifts = TypeVar("Redshifts")
_LATER = ("rest", "window_rest", "norm", "level")


class Frame(BaseModel):
    """What a spectrum is turned into before a model sees it.

    Examples
    --------
    >>> mapper = named("fs").on(Grid(kind="log", start=3.55, step=1e-4, size=4700))
    >>> batch = mapper.to(np.ones((2, 4700)), np.ones((2, 4700)), z=[0.05, 0.1], ebv=[0, 0])
    >>> batch.x.shape, batch.scale
    (torch.Size([2, 3800]), tensor([1., 1.]))
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "fs"
    grid: Grid = Grid(kind="linear", start=3700, step=1, size=3800)
    "Wavelengths, vacuum: at rest, or observed where `rest` is False."
    window: tuple[float, float] = (6000, 6500)
    "Wavelengths whose flux becomes the level; first included, last not; A."
    dust: Law | None = "F99"
    "Galactic extinction law that is taken out; None takes nothing out."
    r_v: PositiveFloat = 3.1
    "A(V) / E(B-V) of that law."
    min_good: float = Field(default=0.5, gt=0, le=1)
    "Share of a frame pixel that must be covered by good input."
    rest: bool = True
    "Whether wavelengths are divided by 1 + z; else the spectrum stays where it was observed."
    window_rest: bool = False
    "Whether, on observed wavelengths, the window is at rest, and so moves with the redshift."
    norm: Literal["mean", "median", "l2"] = "mean"
    """What of the window's good pixels becomes the level: their mean, their median, or the root of
    the sum of their squares, noise taken out, as if all pixels were good."""
    level: PositiveFloat = 1.0
    "What it becomes."

    @model_validator(mode="after")
    def _window_inside(self) -> Self:
        low, high = self.window
        first, last = self.grid.edges[[0, -1]]
        if not first <= low < high <= last:
            raise ValueError(
                f"frame {self.name!r}: window {low:g}-{high:g} A; expected ascending and "
                f"inside the grid, {first:g}-{last:g} A"
            )
        if self.window_rest and self.rest:
            raise ValueError(
                f"frame {self.name!r}: window_rest on rest wavelengths, where every window is; "
                "leave it out, or set rest = false"
            )
        return self

    @model_serializer(mode="wrap")
    def _said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are said where they differ: labels of older frames stay."""
        known = type(self).model_fields
        return {
            name: value
            for name, value in write(self).items()
            if name not in _LATER or getattr(self, name) != known[name].default
        }

    @property
    def digest8(self) -> str:
        """First 8 hex digits of blake2b of the frame's canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """Name and digest, as products carry it: fs-1a2b3c4d."""
        return f"{self.name}-{self.digest8}"

    def on(self, grid: Grid) -> "Mapper":
        """The way between spectra on an observed grid and this frame; made once."""
        return _mapper(self, grid)

    def z_seen(self, z: Redshifts) -> Redshifts | None:
        """The redshifts that lines have on this frame; None where they are at rest."""
        return None if self.rest else z


class Mapper:
    """From one observed grid to a frame and back. Get it from `Frame.on`."""

    def __init__(self, frame: Frame, grid: Grid) -> None:
        self.frame, self.grid = frame, grid
        self._rebin = rebinner(grid, frame.grid)
        self._redshift = rebinner(frame.grid, grid)
        k = np.zeros(grid.size)
        if frame.dust is not None:
            k = curve(frame.dust, grid.wavelength, frame.r_v)
        self._extinction = torch.from_numpy(0.4 * math.log(10) * k).float()
        centre = frame.grid.wavelength
        first, last = np.searchsorted(centre, frame.window)
        self._window = slice(int(first), int(last))
        self._centre = torch.from_numpy(centre)
        # A log pixel is as wide, in pixels of a log source, at any redshift.
        step = grid.step if grid.kind == "linear" else centre * math.log(10) * grid.step
        self._width = torch.from_numpy(frame.grid.widths / step)

    def to(
        self,
        flux: ArrayLike | Tensor,
        ivar: ArrayLike | Tensor,
        z: ArrayLike | Tensor,
        ebv: ArrayLike | Tensor,
        *,
        device: torch.device | None = None,
    ) -> Batch:
        """Observed spectra as the model sees them.

        Parameters
        ----------
        flux, ivar : (N, L) float
            Survey unit, on the observed grid; ivar 0 is no data.
        z, ebv : (N,) float
            Redshift; Galactic E(B-V), mag.
        device : torch.device, optional
            Where to work, and where the batch is; where flux is, unless given.

        Raises
        ------
        ValueError
            When flux or ivar is not (N, L), z or ebv not (N,), or the N differ.
        """
        columns = (
            tensor(flux, "flux", self.grid.size),
            tensor(ivar, "ivar", self.grid.size),
            tensor(z, "z"),
            tensor(ebv, "ebv"),
        )
        made = (vars(self._to_rows(rows)) for rows in parts(columns, device))
        return Batch(**joined(made, len(columns[0])))

    def back(
        self,
        x: ArrayLike | Tensor,
        scale: ArrayLike | Tensor,
        z: ArrayLike | Tensor,
        ebv: ArrayLike | Tensor,
        sigma: ArrayLike | Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Spectra on the frame as the telescope would see them: reddened, on the observed grid.

        Parameters
        ----------
        x : (N, P) float
            Normalised flux on the frame; every pixel counts.
        scale, z, ebv : (N,) float
            As in the `Batch` and the call that made it.
        sigma : (N, P) float, optional
            Standard deviation of a pixel of x. A model's errors are correlated over pixels, so
            the mean of sigma is taken, not its quadrature.

        Returns
        -------
        flux, sigma : (N, L) float32
            Survey unit; 0 outside the frame's coverage and where z is no redshift.
        """
        rows = (tensor(scale, "scale"), tensor(z, "z"), tensor(ebv, "ebv"))
        pixels = self.frame.grid.size
        found = []
        for name, values in (("x", x), ("sigma", sigma)):
            if values is None:
                continue
            columns = (tensor(values, name, pixels), *rows)
            made = ({"flux": self._back_rows(*part)} for part in parts(columns))
            found.append(joined(made, len(columns[0]))["flux"])
        return found[0], found[1] if len(found) > 1 else None

    def _to_rows(self, rows: tuple[Tensor, ...]) -> Batch:
        flux, ivar, z, ebv = rows
        known = torch.isfinite(z) & (z > -1) & torch.isfinite(ebv)
        z, ebv = torch.where(known, z, 0), torch.where(known, ebv, 0)
        # torch.exp rounds alike wherever an element stands in memory; torch.exp2 does not.
        bright = torch.exp(ebv.float()[:, None] * self._extinction.to(flux.device))
        stretch, min_good = self._stretch(z), self.frame.min_good
        binned = self._rebin(flux, ivar, stretch, gain=bright, min_good=min_good, smooth=True)
        level, good = self._level(binned.flux, binned.ivar, z)
        ok = known & (good >= 0.5) & torch.isfinite(level) & (level > 0)
        scale = torch.where(ok, level, 1)
        weight = binned.ivar.mul_((scale.square() * ok)[:, None])
        x = bridged(binned.flux.mul_((ok / scale)[:, None]), weight)
        return Batch(x=x, weight=weight, scale=scale, z=z, ok=ok)

    def _stretch(self, z: Tensor) -> Tensor:
        """Frame to observed wavelengths, (N,)."""
        return 1 + z if self.frame.rest else torch.ones_like(z)

    def _level(self, flux: Tensor, ivar: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """What spectra are divided by, and the share of the window's pixels that are good."""
        size: Tensor | int = self._window.stop - self._window.start
        part = self._window
        if self.frame.window_rest:
            inside, size = self._moved(1 + z)
            part, flux, ivar = slice(None), flux * inside, ivar * inside
        flux, ivar = flux[:, part], ivar[:, part]
        count = ivar.sign().sum(dim=1)
        if self.frame.norm == "mean":
            found = norm.mean(flux, count)
        elif self.frame.norm == "median":
            found = norm.median(flux, ivar)
        else:
            own = norm.own_share(self._widths(self._stretch(z)))[:, part]
            found = norm.length(flux, ivar, own, count, size)
        return found / self.frame.level, count / size

    def _moved(self, stretch: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (N, P) of a window at rest, 1 or 0, and how many it has, seen or not."""
        low, high = (edge * stretch for edge in self.frame.window)
        centre, grid = self._centre.to(stretch.device), self.frame.grid
        inside = (centre >= low[:, None]) & (centre < high[:, None])
        size = (high / low).log10() if grid.kind == "log" else high - low
        return inside.float(), (size / grid.step).float()

    def _widths(self, stretch: Tensor) -> Tensor:
        """Widths (N, P) of frame pixels, in observed ones."""
        width = self._width.to(stretch.device)
        moves = stretch if self.grid.kind == "linear" else torch.ones_like(stretch)
        return (width * moves[:, None]).float()

    def _back_rows(self, x: Tensor, scale: Tensor, z: Tensor, ebv: Tensor) -> Tensor:
        known = torch.isfinite(z) & (z > -1)
        stretch = 1 / self._stretch(torch.where(known, z, 0))
        dim = torch.exp(-ebv.float()[:, None] * self._extinction.to(x.device))
        flux = self._redshift.mean(x, stretch, self.frame.min_good)
        return torch.nan_to_num(flux.mul_(dim).mul_((scale * known).float()[:, None]))


@lru_cache(maxsize=32)
def _mapper(frame: Frame, grid: Grid) -> Mapper:
    return Mapper(frame, grid)
