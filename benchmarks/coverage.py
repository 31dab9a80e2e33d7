"""How many denoised indices are within their errors of the truth: on mocks that nobody has seen.

    python benchmarks/coverage.py CARD [--n 500] [--model NAME ...]

For every model of a card that `specmill train` has finished. The mock spectra are drawn from a
stream of their own: neither training, verdict nor calibration had them. 68.3 % are due. Columns:
what gives the error; coverage of the bare draws, of the errors that are given, of these in bins of
S/N, of the de-shrunk values; at S/N 5-8, the slope of output on truth, and by how much the error of
the noisy spectrum is larger.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrate import shown_on
from pipeline.card import Card, load
from pipeline.errors import ErrorKind, Found, errors_of
from training import checkpoint, registry
from training.calibrate import WITHIN, answers
from training.checkpoint import Checkpoint
from training.shown import BINS, Shown

Array = NDArray[np.float64]
NAMES = {
    ErrorKind.NONE: "none",
    ErrorKind.DRAWS: "draws",
    ErrorKind.CALIBRATED_DRAWS: "calibrated draws",
    ErrorKind.CALIBRATED: "table",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("card")
    parser.add_argument("--n", type=int, default=500, help="objects in each bin of S/N")
    parser.add_argument("--model", nargs="*", help="aliases; all of the run when left out")
    asked = parser.parse_args()
    card = load(asked.card, [f"verdict.calibrate={asked.n}"])
    models = models_of(card, asked.model)
    bins = " | ".join(f"{low:g}-{high:g}" for low, high in BINS)
    print(f"| model | index | error | draws | given | {bins} | de-shrunk | slope | gain |")
    print("|---|---|---|---|---|" + "---|" * (len(BINS) + 3))
    for frame in dict.fromkeys(model.frame for model in models.values()):
        shown = shown_on(card, frame, "coverage")
        for name, model in models.items():
            if model.frame == frame:
                show(name, model, shown, card)


def models_of(card: Card, wanted: list[str] | None) -> dict[str, Checkpoint]:
    """Checkpoints by alias."""
    folder = Path(card.checkpoints)
    known = registry.aliases(folder)
    return {name: checkpoint.load(folder / known[name]) for name in wanted or known}


def show(name: str, model: Checkpoint, shown: Shown, card: Card) -> None:
    """A line for each index."""
    output, drawn = answers(model.model, shown, draws=card.measure.draws, seed=card.run.seed + 1)
    table = model.errors
    z = shown.batch.z.numpy()
    known = None if table is None else table.look_up(shown.names, shown.kind, z, shown.snr)
    found = errors_of(output, np.zeros(output.shape, np.uint8), drawn, known)
    noise = shown.noisy.double().numpy() - shown.truth
    for place, index in enumerate(shown.names):
        print(line(name, index, place, found, (drawn, noise), shown))


def line(
    name: str, index: str, place: int, found: Found, known: tuple[Array, Array], shown: Shown
) -> str:
    """Coverage of one index: as the draws have it, as it is given, by S/N, de-shrunk."""
    drawn, noise = (each[:, place] for each in known)
    truth = shown.truth[:, place]
    apart, error = found.value[:, place] - truth, found.error[:, place]
    parts = [(shown.snr >= low) & (shown.snr < high) for low, high in BINS]
    bins = " | ".join(share(apart[part], error[part]) for part in parts)
    kinds = found.kind[np.isfinite(error), place]
    kind = NAMES[ErrorKind(np.bincount(kinds).argmax())] if len(kinds) else "none"
    far, wide = found.deshrunk[:, place] - truth, found.deshrunk_error[:, place]
    usual = parts[3] & np.isfinite(noise)
    gain = np.nanquantile(np.abs(noise[usual]), WITHIN) / np.nanmedian(error[usual])
    slope = slope_of(found.value[usual, place], truth[usual])
    return (
        f"| {name} | {index} | {kind} | {share(apart, drawn)} | {share(apart, error)} | {bins} | "
        f"{share(far, wide)} | {slope:.2f} | {gain:.1f} |"
    )


def slope_of(output: Array, truth: Array) -> float:
    """Of output on truth at S/N 5-8."""
    good = np.isfinite(output) & np.isfinite(truth)
    return float(np.polyfit(truth[good], output[good], 1)[0])


def share(apart: Array, error: Array) -> str:
    """Per cent of what is within its error."""
    good = np.isfinite(apart) & np.isfinite(error)
    return f"{100 * np.mean(np.abs(apart[good]) < error[good]):.0f}" if good.any() else "-"


if __name__ == "__main__":
    main()
