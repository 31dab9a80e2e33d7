"""Rounding: how the products of a network are rounded while it learns, and who decides that.

The measure is what an index would notice: means of the output over 100 A, in units of what the
noise of the spectrum does to them. Axes: N spectra, P pixels of the frame, B bands.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from storage.grid import Grid
from training import precision, ranks
from training.apply import rounds
from training.batch import Batch
from training.model import Denoiser

logger = logging.getLogger(__name__)

Asked = Literal["highest", "high", "medium", "bfloat16", "auto"]
"What a card may say."
ORDER = ("bfloat16", "medium", "highest")
"What 'auto' may take, the fastest first."

BAND = 100.0
"Width of a band, A: that of the bands of Dn4000."
SEEN = 0.9
"Share of a band's pixels that must have data."


def look(
    asked: Asked,
    model: Denoiser,
    sample: Callable[[], Batch],
    grid: Grid,
    before: dict[str, Any],
) -> dict[str, Any]:
    """How products are rounded from now on, and what that does to what the model says.

    Parameters
    ----------
    asked : Asked
        By the card. 'auto' is measured anew every time, and never goes back to a faster way. What
        else is asked for is taken and measured, at first and after 1, 2, 4, 8 ... times; where it
        moves a band too far, a warning says so.
    sample : callable
        Gives spectra as the survey has them, some hundreds, always the same ones.
    grid : Grid
        Of the frame.
    before : dict
        What was found the last time; empty at first.

    Returns
    -------
    dict
        asked, taken, and of what is not 'highest': rows, bands; worst (the largest shift of any
        band, in formal errors, by precision) and shifts (by precision, by band). Of 'high', which
        rounds less, those of 'medium'.
    """
    if asked == "highest" or not rounds(model):
        return {"asked": asked, "taken": "highest"}
    if asked != "auto":
        return _as_asked(asked, model, sample, grid, before)
    if before and before["taken"] == ORDER[-1]:
        return before
    # What was too far once is not asked for again.
    found = _moved("medium" if before.get("taken") == "medium" else "auto", model, sample, grid)
    quick = "highest" if found.precision == "float32" else found.precision
    worst = _worst(found.shifts)
    number = ORDER.index(quick if _is_small(worst.get(found.precision)) else "highest")
    # Ranks on unlike machines must not part ways.
    device = next(model.parameters()).device
    taken = ORDER[int(ranks.from_first(torch.tensor(number, device=device)))]
    if taken != before.get("taken"):
        logger.info("products are rounded: %s; shifts by precision: %s", taken, worst)
    return {"asked": asked, "taken": taken, **_said(found, grid)}


def _as_asked(
    asked: Asked,
    model: Denoiser,
    sample: Callable[[], Batch],
    grid: Grid,
    before: dict[str, Any],
) -> dict[str, Any]:
    """Taken as it is, and measured now and then."""
    times = before.get("times", 0)
    said = {"asked": asked, "taken": asked, **before, "times": times + 1}
    # A network that starts as one spectrum is moved by nothing at first.
    if times & (times - 1):
        return said
    found = _moved("bfloat16" if asked == "bfloat16" else "medium", model, sample, grid)
    said |= _said(found, grid)
    worst = said["worst"].get(found.precision)
    if found.shifts and not _is_small(worst):
        far = "beyond any value" if worst is None else f"by {worst:.2g} of its formal error"
        logger.warning(
            "products are rounded as the card asks, %r, and that moves the mean of a band of 100 A "
            "%s; precision 'auto' takes what moves none by %g",
            asked,
            far,
            precision.LIMIT,
        )
    return said


def _moved(
    asked: precision.Asked, model: Denoiser, sample: Callable[[], Batch], grid: Grid
) -> precision.Choice:
    training = model.training
    found = precision.choose(asked, model.eval(), sample(), *bands(grid))
    model.train(training)
    return found


def _said(found: precision.Choice, grid: Grid) -> dict[str, Any]:
    """For the state of a run."""
    return {
        "rows": found.rows,
        "bands": len(bands(grid)[0]),
        "worst": _worst(found.shifts),
        "shifts": found.shifts,
    }


def bands(grid: Grid) -> tuple[list[str], precision.Measure]:
    """Names of the bands of 100 A that a frame has, and what measures their means."""
    wavelength = grid.wavelength
    count = max(1, int((wavelength[-1] - wavelength[0]) // BAND))
    width = (wavelength[-1] - wavelength[0]) / count if count == 1 else BAND
    lows = wavelength[0] + width * torch.arange(count, dtype=torch.float64)
    pixels = torch.from_numpy(wavelength)
    inside_BP = (pixels >= lows[:, None]) & (pixels < lows[:, None] + width)

    def measure(flux: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        inside_PB = inside_BP.T.to(flux.device, torch.float64)
        known = torch.ones_like(flux) if weight is None else weight
        good = known > 0
        count_NB = good.double() @ inside_PB
        mean = torch.where(good, flux, 0).double() @ inside_PB / count_NB
        variance = torch.where(good, 1 / known.double(), 0) @ inside_PB
        seen = count_NB >= SEEN * inside_PB.sum(0)
        return mean.where(seen, torch.nan), (variance.sqrt() / count_NB).where(seen, torch.nan)

    return [f"{low:.0f}-{low + width:.0f} A" for low in lows.tolist()], measure


@contextmanager
def products(taken: str, device: torch.device) -> Iterator[None]:
    """Products of float32 numbers, forward and back; what was set before holds again afterwards."""
    before = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision("medium" if taken == "bfloat16" else taken)
        if device.type == "cuda":
            # PyTorch lets convolutions round unless told otherwise, and choose a way that varies.
            tf32 = taken != "highest"
            flags = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32)
            stack.enter_context(flags)
        yield


def forward(taken: str, device: torch.device) -> AbstractContextManager[None]:
    """For one forward pass: what is kept rounded in it would be out of date after a step."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=taken == "bfloat16")


def _is_small(shift: float | None) -> bool:
    return shift is not None and shift < precision.LIMIT


def _worst(shifts: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    """The largest shift of any band, by precision; None where a value was lost."""
    found: dict[str, float | None] = {}
    for name, by_band in shifts.items():
        known = [shift for shift in by_band.values() if shift is not None]
        found[name] = max(known) if known and len(known) == len(by_band) else None
    return found
