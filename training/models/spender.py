"""Spender: an encoder with attention, a rest-frame decoder, the redshift after it (Melchior+2023).

It sees spectra as observed, at any redshift: the grid is that of the spectrograph, and the frame
one that leaves the wavelengths alone ('spender'). Axes: N spectra, P observed and R rest pixels.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import Tensor
from torch.nn import functional as F

from storage.grid import Grid
from training import losses, speculator
from training.attention import Encoder, Tower
from training.batch import Batch
from training.model import Output
from training.network import Network, NetworkOptions
from training.night_lines import STRONGEST, clear
from training.redshifted import Redshifted, rest_grid

Widths = tuple[PositiveInt, PositiveInt, PositiveInt]


class Options(NetworkOptions):
    """What a card may say of this model; the defaults are the paper's."""

    loss: losses.Name = "chi2"
    "What is made small."
    latents: PositiveInt = 6
    "S."
    filters: Widths = (128, 256, 512)
    "Channels after each convolution; half of the last are attention."
    taps: Widths = (5, 11, 21)
    "Pixels of each kernel; those of the first two are also pooled."
    norm: bool = True
    "Instance norm after each convolution, as in the public code; the paper does not mention it."
    encoder: tuple[PositiveInt, ...] = (128, 64, 32)
    "Units between the attended values and the latents."
    decoder: tuple[PositiveInt, ...] = (64, 256, 1024)
    "Units between the latents and the rest pixels."
    activation: Literal["speculator", "leaky_relu"] = "speculator"
    "Of the decoder."
    activation_start: speculator.Start = "paper"
    "Of the speculator's numbers; the public code draws them at random."
    z_input: bool = True
    "Whether the encoder is told the redshift; the public code no longer does."
    weight_attention: bool = False
    "Whether inverse variances steer the attention; tried and left out in the paper (3.3)."
    z_max: PositiveFloat = 0.5
    "Largest redshift; beyond it, the blue end of a spectrum is left out."
    rest_pixels: NonNegativeInt = 0
    "R; 0: as many as keep the observed sampling at z_max. 11762 is the paper's super-resolution."
    lsf: NonNegativeInt = 0
    "Observed pixels of a line spread function that is learnt; 0: none. 5 for super-resolution."
    rebin: PositiveInt = 1
    "Observed pixels that the encoder sees as one."
    sky_lines: int = Field(default=0, ge=0, le=len(STRONGEST))
    "Pixels near so many of the strongest lines of the night sky teach nothing; 100 in the paper."
    sky_width: PositiveFloat = 5.0
    "How near, A."

    @field_validator("taps", "lsf")
    @classmethod
    def _have_a_middle(cls, value: Widths | int) -> Widths | int:
        sizes = value if isinstance(value, tuple) else (value,)
        if any(size and size % 2 == 0 for size in sizes):
            raise ValueError("a kernel is of an odd number of pixels, to have a middle")
        return value

    @field_validator("sigma")
    @classmethod
    def _says_none(cls, value: bool) -> bool:
        if value:
            raise ValueError("it says none of its own; use loss 'chi2', or an ensemble")
        return value

    @field_validator("line_weight")
    @classmethod
    def _stand_still(cls, value: float) -> float:
        if value:
            raise ValueError("lines move with the redshift here; it is for rest-frame spectra")
        return value

    @field_validator("filters")
    @classmethod
    def _can_be_split(cls, value: Widths) -> Widths:
        if value[-1] % 2:
            raise ValueError("half of the last are attention: an even number")
        return value


class Spender(Network):
    """Spectra on an observed grid, through a rest-frame spectrum of few numbers, and back."""

    dark: Tensor

    def __init__(self, grid: Grid, options: Options) -> None:
        super().__init__(grid, options)
        self.options = options
        pixels = options.rest_pixels or int(grid.size * (1 + options.z_max))
        self.rest = rest_grid(grid, pixels, options.z_max)
        tower = Tower(self.channels, options.filters, options.taps, options.norm)
        half = options.filters[-1] // 2
        other = None
        if options.weight_attention:
            other = Tower(1, [*options.filters[:-1], half], options.taps, options.norm)
        into = half + options.z_input
        self.encoder = Encoder(tower, [into, *options.encoder, options.latents], other)
        self.decoder = speculator.Decoder(
            [options.latents, *options.decoder, pixels],
            options.activation,
            options.activation_start,
        )
        self.redshifted = Redshifted(self.rest, grid, options.lsf)
        dark = clear(grid.wavelength, options.sky_lines, options.sky_width)
        self.register_buffer("dark", torch.from_numpy(dark).float(), persistent=False)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise; 0 where the rest-frame spectrum does not reach."""
        latent = self.encode(x, weight, z)
        return Output(flux=self.redshifted(self.decoder(latent), z), latent=latent)

    def encode(self, x: Tensor, weight: Tensor, z: Tensor) -> Tensor:
        """Latents (N, S)."""
        return self._compress(*self._attend(x, weight), z)

    def attention(self, x: Tensor, weight: Tensor) -> Tensor:
        """Attention of every channel to every segment, (N, channels, segments), rows of sum 1."""
        return self._attend(x, weight)[1].mT

    def restframe(self, latent: Tensor) -> Tensor:
        """Rest-frame spectra (N, R) of latents, before any line spread; `rest` is their grid."""
        found: Tensor = self.decoder(latent)
        return found

    @torch.enable_grad()
    def attention_for(
        self, measure: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor, z: Tensor
    ) -> Tensor:
        """Grad-FAM: what each attention adds to a number that is measured (their eq. 4).

        Parameters
        ----------
        measure : callable
            Rest-frame spectra (N, R) to a number of each (N,): the height of a line.
        x, weight, z
            As in `forward`.

        Returns
        -------
        (N, channels, segments)
            The gradient of the number over the attention, times the attention.
        """
        values, attention = self._attend(x, weight)
        attention = attention.detach().requires_grad_()
        found = measure(self.decoder(self._compress(values, attention, z)))
        (gradient,) = torch.autograd.grad(found.sum(), attention)
        return (gradient * attention.detach()).mT

    def wanted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As of every network, less the pixels beyond the rest-frame spectrum or near sky lines."""
        target, weight = super().wanted(batch)
        return target, weight * self.redshifted.inside(batch.z) * self.dark

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw the weights; the spectra of the first step are close to flat."""
        device = self.emphasis.device
        # Drawn on the CPU, so that every device starts alike.
        self.cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.modules():
                reset = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()
        self.to(device)

    def _attend(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        seen = self._rebinned(self.seen(x, weight))
        if not self.options.weight_attention:
            return self.encoder.attend(seen)
        return self.encoder.attend(seen, self._rebinned(torch.log1p(weight).unsqueeze(1) / 4))

    def _rebinned(self, seen: Tensor) -> Tensor:
        return seen if self.options.rebin == 1 else F.avg_pool1d(seen, self.options.rebin)

    def _compress(self, values: Tensor, attention: Tensor, z: Tensor) -> Tensor:
        return self.encoder.compress(
            values, attention, z[:, None] if self.options.z_input else None
        )


def build(grid: Grid, **options: object) -> Spender:
    """SPENDER on an observed grid.

    Raises
    ------
    ValueError
        When an option is unknown or cannot be.
    """
    return Spender(grid, Options.model_validate(options))
