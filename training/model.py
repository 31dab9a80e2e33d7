"""The contract of a denoiser: spectra on a frame in, spectra on the same frame out.

A model is a module on the shelf `training.models` with a `build(grid, **options)` that gives a
`Denoiser`, `grid` being the wavelength axis of the frame. Axes: N spectra, P pixels of the frame,
S latents.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from training.batch import Batch


class Output(NamedTuple):
    """What a denoiser says of N spectra, normalised as its frame does."""

    flux: Tensor
    "(N, P) denoised flux."
    sigma: Tensor | None = None
    "(N, P) standard deviation of one pixel of flux; never to be combined as if independent."
    latent: Tensor | None = None
    "(N, S) latent coordinates."
    latent_cov: Tensor | None = None
    "(N, S, S) covariance of the latents; draws of the posterior come from it."


class Denoiser(nn.Module, ABC):
    """A denoiser; its state_dict is everything that was learnt.

    `fit` says how it learns: by 'gradient' of `loss`, by 'sums' (`accumulate` over every batch,
    all-reduced, then `update`: an epoch is one EM step or one pass), or 'none'.
    """

    fit: ClassVar[Literal["gradient", "sums", "none"]]
    by_target: ClassVar[bool] = True
    "Whether the target of a batch teaches it; if not, it learns from the input alone."

    @abstractmethod
    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise x (N, P) of inverse variance weight (N, P; 0 = no data) at redshifts z (N,)."""

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Set the state that training starts from, from the data where that helps."""

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch, for 'gradient'."""
        raise TypeError(f"{type(self).__name__} does not learn by gradient")

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over a batch, for 'sums'; they are added over batches and ranks, in float64."""
        raise TypeError(f"{type(self).__name__} does not learn by sums")

    def update(self, sums: dict[str, Tensor]) -> float:
        """Take the sums of a whole epoch; gives the objective (lower is better)."""
        raise TypeError(f"{type(self).__name__} does not learn by sums")

    def decode(self, latent: Tensor) -> Tensor:
        """Flux (N, P) of latents (N, S); for draws, by models that give `latent_cov`."""
        raise TypeError(f"{type(self).__name__} has no decoder for draws")

    def parameters_count(self) -> int:
        """Learnt numbers: by gradient the weights, by sums all of the state."""
        # Beside its weights a network may keep the mean of what it has seen.
        learnt = self.parameters() if self.fit == "gradient" else self.state_dict().values()
        return sum(value.numel() for value in learnt if torch.is_floating_point(value))
