"""Precision: how far a faster way to multiply moves the indices, and which way is fast enough.

What rounding does to a spectrum says little: it is alike in all pixels of a line, so it does not
average out. So the indices themselves are measured, in units of what their noise does to them.
Axes: N spectra, P pixels of the frame, I indices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.apply import Precision, apply, rounds
from training.batch import Batch
from training.device import device_of, download
from training.model import Denoiser

Asked = Literal["float32", "medium", "bfloat16", "auto"]
"What a card may say; auto takes the fastest that moves no index by `LIMIT`."

LIMIT = 0.1
"Formal errors that an index may be moved by."
QUANTILE = 0.99
"Share of the sample that moves by less; the rest are those that hardly have a continuum."
FASTER: tuple[Precision, ...] = ("bfloat16", "medium")
"Than float32, the fastest first: the same order on all machines that multiply bfloat16 at all."


class Measure(Protocol):
    """Indices of spectra on the rest-frame axis of a frame."""

    def __call__(self, flux: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Values and errors (N, I) of flux (N, P); weight is 0 where no data, None: all is there.

        NaN where there is no value.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The precision of a product, and what is known of it."""

    asked: Asked
    "By the card."
    precision: Precision
    "Taken."
    rows: int = 0
    "Spectra that were looked at."
    shifts: dict[str, dict[str, float | None]]
    """By precision tried, by index: `QUANTILE` of the shift from float32, in formal errors; None
    where it took the value away. An index that no spectrum gives is left out."""

    @property
    def attrs(self) -> dict[str, Any]:
        """For the attributes of a product."""
        return {
            "precision": self.precision,
            "precision_asked": self.asked,
            "precision_rows": self.rows,
            "precision_shifts": self.shifts,
        }


def choose(
    asked: Asked, model: Denoiser, batch: Batch, names: Sequence[str], measure: Measure
) -> Choice:
    """The precision for a model on its device; the same again for the same kind of processor.

    Parameters
    ----------
    asked : Asked
        What is not auto is taken, and its shifts are recorded; a model that does not learn by
        gradient is float32 whatever is asked.
    batch : Batch
        Spectra as the survey has them, some hundreds; always the same ones.
    names, measure
        I indices, and what measures them.

    Raises
    ------
    ValueError
        When a precision is unknown.
    """
    if asked not in get_args(Asked):
        raise ValueError(f"precision {asked!r} is unknown; known: {', '.join(get_args(Asked))}")
    if asked == "float32" or not rounds(model):
        return Choice(asked=asked, precision="float32", shifts={})
    device = device_of(model) or batch.x.device
    tried = [one for one in FASTER if native(one, device)] if asked == "auto" else [asked]
    shifts: dict[str, dict[str, float | None]] = {}
    found: Precision = "float32"
    noise = download(measure(batch.x, batch.weight)[1])
    exact = _values(model, batch, "float32", measure)
    for precision in tried:
        moved = _values(model, batch, precision, measure)
        shifts[precision] = _shifts(moved, exact, noise, names)
        if asked != "auto" or _small(shifts[precision]):
            found = precision
            break
    return Choice(asked=asked, precision=found, rows=len(batch.x), shifts=shifts)


def native(precision: Precision, device: torch.device) -> bool:
    """Whether a device multiplies so in hardware; elsewhere it is slower than float32."""
    if device.type == "cuda":
        # TF32 and bfloat16 came with the same generation.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "bfloat16":
        can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # torch's


def _values(
    model: Denoiser, batch: Batch, precision: Precision, measure: Measure
) -> NDArray[np.float64]:
    values = measure(apply(model, batch, precision).flux, None)[0]
    return download(values).astype(np.float64)


def _shifts(
    moved: NDArray[np.float64],
    exact: NDArray[np.float64],
    noise: NDArray[Any],
    names: Sequence[str],
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for column, name in enumerate(names):
        known = np.isfinite(exact[:, column]) & (noise[:, column] > 0)
        if known.any():
            shift = np.abs(moved - exact)[known, column] / noise[known, column]
            # A value that is gone has moved further than any.
            most = np.quantile(np.nan_to_num(shift, nan=np.inf), QUANTILE, method="higher")
            found[name] = float(most) if np.isfinite(most) else None
    return found


def _small(shifts: dict[str, float | None]) -> bool:
    """Whether all indices stay where they were; where none is known, nothing is known."""
    return bool(shifts) and all(shift is not None and shift < LIMIT for shift in shifts.values())
