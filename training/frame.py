"""Frame: how a model sees a spectrum, and the way there and back.

Observed flux -> dereddened (observed frame) -> rest wavelengths -> rebinned -> window mean 1.
The frame is part of what a model learnt: its digest names every product that lies on it.

Axes: N spectra, L observed pixels, P frame pixels.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor

from storage.dust import Law, curve
from storage.grid import Grid
from storage.resample import rebinner
from training.batch import Batch
from training.bridge import bridged
from training.device import upload

# Rows worked on together: their arrays stay in a core's cache (more is slower), and a row's
# rounding cannot depend on how many there are.
ROWS_CPU, ROWS_GPU = 32, 1024


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
    "Rest wavelengths, vacuum."
    window: tuple[float, float] = (6000, 6500)
    "Rest wavelengths whose mean flux becomes 1; first included, last not; A."
    dust: Law | None = "F99"
    "Galactic extinction law that is taken out; None takes nothing out."
    r_v: PositiveFloat = 3.1
    "A(V) / E(B-V) of that law."
    min_good: float = Field(default=0.5, gt=0, le=1)
    "Share of a frame pixel that must be covered by good input."

    @model_validator(mode="after")
    def _window_inside(self) -> Self:
        low, high = self.window
        first, last = self.grid.edges[[0, -1]]
        if not first <= low < high <= last:
            raise ValueError(
                f"frame {self.name!r}: window {low:g}-{high:g} A; expected ascending and "
                f"inside the grid, {first:g}-{last:g} A"
            )
        return self

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
            _tensor(flux, "flux", self.grid.size),
            _tensor(ivar, "ivar", self.grid.size),
            _tensor(z, "z"),
            _tensor(ebv, "ebv"),
        )
        parts = (vars(self._to_rows(rows)) for rows in _parts(columns, device))
        return Batch(**_joined(parts, len(columns[0])))

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
        rows = (_tensor(scale, "scale"), _tensor(z, "z"), _tensor(ebv, "ebv"))
        pixels = self.frame.grid.size
        found = []
        for name, values in (("x", x), ("sigma", sigma)):
            if values is None:
                continue
            columns = (_tensor(values, name, pixels), *rows)
            parts = ({"flux": self._back_rows(*part)} for part in _parts(columns))
            found.append(_joined(parts, len(columns[0]))["flux"])
        return found[0], found[1] if len(found) > 1 else None

    def _to_rows(self, rows: tuple[Tensor, ...]) -> Batch:
        flux, ivar, z, ebv = rows
        known = torch.isfinite(z) & (z > -1) & torch.isfinite(ebv)
        z, ebv = torch.where(known, z, 0), torch.where(known, ebv, 0)
        # torch.exp rounds alike wherever an element stands in memory; torch.exp2 does not.
        bright = torch.exp(ebv.float()[:, None] * self._extinction.to(flux.device))
        min_good = self.frame.min_good
        binned = self._rebin(flux, ivar, 1 + z, gain=bright, min_good=min_good, smooth=True)
        mean, good = self._window_mean(binned.flux, binned.ivar)
        ok = known & (good >= 0.5) & torch.isfinite(mean) & (mean > 0)
        scale = torch.where(ok, mean, 1)
        weight = binned.ivar.mul_((scale.square() * ok)[:, None])
        x = bridged(binned.flux.mul_((ok / scale)[:, None]), weight)
        return Batch(x=x, weight=weight, scale=scale, z=z, ok=ok)

    def _window_mean(self, flux: Tensor, ivar: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over the window's good pixels, and their share of it."""
        count = ivar[:, self._window].sign().sum(dim=1)
        # Flux is 0 where there is no data: the sum needs no mask.
        total = flux[:, self._window].sum(dim=1)
        return total / count, count / (self._window.stop - self._window.start)

    def _back_rows(self, x: Tensor, scale: Tensor, z: Tensor, ebv: Tensor) -> Tensor:
        known = torch.isfinite(z) & (z > -1)
        stretch = 1 / (1 + torch.where(known, z, 0))
        dim = torch.exp(-ebv.float()[:, None] * self._extinction.to(x.device))
        flux = self._redshift.mean(x, stretch, self.frame.min_good)
        return torch.nan_to_num(flux.mul_(dim).mul_((scale * known).float()[:, None]))


@lru_cache(maxsize=32)
def _mapper(frame: Frame, grid: Grid) -> Mapper:
    return Mapper(frame, grid)


def _tensor(values: ArrayLike | Tensor, name: str, pixels: int | None = None) -> Tensor:
    """Values as a tensor: (N, pixels) float32, or (N,) float64."""
    dtype = torch.float64 if pixels is None else torch.float32
    if not isinstance(values, Tensor):
        array = np.asarray(values, dtype=np.float64 if pixels is None else np.float32)
        # torch warns of arrays that it could write to by accident.
        values = torch.from_numpy(array if array.flags.writeable else array.copy())
    expected = 1 if pixels is None else 2
    if values.ndim != expected or (pixels is not None and values.shape[1] != pixels):
        shape = "(N,)" if pixels is None else f"(N, {pixels})"
        raise ValueError(f"{name}: shape is {tuple(values.shape)}; expected {shape}")
    return values.to(dtype)


def _parts(
    columns: tuple[Tensor, ...], device: torch.device | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Equal parts of the rows, on a device (that of the first column, unless given).

    The last is filled up with zeros.

    Raises
    ------
    ValueError
        When the columns are not of one length.
    """
    counts = [len(column) for column in columns]
    if len(set(counts)) > 1:
        raise ValueError(f"numbers of spectra differ: {counts}; expected one row per spectrum")
    device = device or columns[0].device
    rows = ROWS_CPU if device.type == "cpu" else ROWS_GPU
    for first in range(0, max(counts[0], 1), rows):
        part = [upload(column[first : first + rows], device) for column in columns]
        lacking = rows - len(part[0])
        if lacking:
            part = [torch.cat([c, c.new_zeros((lacking, *c.shape[1:]))]) for c in part]
        yield tuple(part)


def _joined(parts: Iterator[dict[str, Tensor]], n: int) -> dict[str, Tensor]:
    """The first n rows of all parts; each is written while still in cache."""
    whole: dict[str, Tensor] = {}
    first = 0
    for part in parts:
        some = {name: value[: n - first] for name, value in part.items() if value is not None}
        for name, value in some.items():
            if name not in whole:
                whole[name] = value.new_empty((n, *value.shape[1:]))
            whole[name][first : first + len(value)] = value
        first += len(value)
    return whole
