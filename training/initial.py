"""Initial: the weights that a network of linear layers begins with, and what it says by them.

Without a start from the median spectrum such a network sits on the mean spectrum for hundreds of
steps; with a noisy output to begin with, the first steps put its units out (all ReLUs dead) for
good. Axes: N spectra, P pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from training.batch import Batch

Init = Literal["he", "glorot"]
ROWS = 4096
"Spectra that a median comes from: its error is then far below the noise of one."


@torch.no_grad()
def draw(linears: Iterable[nn.Linear], how: Init, seed: int) -> None:
    """Uniform weights, of variance 2 / inputs (he) or 2 / (inputs + units) (glorot); biases 0."""
    random = torch.Generator().manual_seed(seed)
    for linear in linears:
        fan_out, fan_in = linear.weight.shape
        variance = 2 / fan_in if how == "he" else 2 / (fan_in + fan_out)
        # Uniform within sqrt(3 variance), drawn on the CPU so that every device starts alike.
        drawn = torch.empty(linear.weight.shape).uniform_(-1, 1, generator=random)
        linear.weight.copy_(drawn * (3 * variance) ** 0.5)
        linear.bias.zero_()


@torch.no_grad()
def centre(firsts: Iterable[tuple[nn.Linear, Tensor]], last: nn.Linear, output: Tensor) -> None:
    """Begin as one spectrum: b_first -= W_first m, b_last = output, W_last = 0.

    Parameters
    ----------
    firsts : pairs of a layer and the median m of its first inputs
        What else it sees of a pixel than flux comes behind, and has no median to speak of.
    last, output
        The last layer, and the median of what it should give.
    """
    for first, middle in firsts:
        first.bias.sub_(first.weight[:, : len(middle)] @ middle.to(first.weight))
    last.bias.copy_(output)
    last.weight.zero_()


@torch.no_grad()
def medians(batches: Iterable[Batch], look: Callable[[Batch], Sequence[Tensor]]) -> list[Tensor]:
    """Medians over the first spectra that have data: they ignore the odd broken one.

    Parameters
    ----------
    look : callable
        Arrays (N, P) of a batch; one median (P,) of each is given.

    Raises
    ------
    ValueError
        When no spectrum has data.
    """
    found: list[list[Tensor]] = []
    count = 0
    for batch in batches:
        found.append([value[batch.ok] for value in look(batch)])
        count += int(batch.ok.sum())
        if count >= ROWS:
            break
    if not count:
        raise ValueError(
            "no spectrum that should teach has data on the frame (and a target, where one is asked "
            "for); check the sample's redshifts against the frame's wavelengths"
        )
    return [torch.cat(values).median(dim=0).values for values in zip(*found, strict=True)]


def layers(widths: Sequence[int], inputs: Sequence[int] | None = None) -> nn.ModuleList:
    """Linear layers from each width to the next; `inputs` where they take in more than that."""
    into = widths[:-1] if inputs is None else inputs
    return nn.ModuleList(nn.Linear(a, b) for a, b in zip(into, widths[1:], strict=True))
