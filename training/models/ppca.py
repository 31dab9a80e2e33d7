"""PPCA: a factor model that knows the noise of every pixel, learnt by EM from noisy spectra alone.

x = mu + W t + noise, with t ~ N(0, 1) and noise of variance 1/weight (Tipping & Bishop 1999, with
each pixel's own variance; Bailey 2012, Delchambre 2015). The output is the posterior mean, so it
comes with a covariance; a missing pixel has weight 0 and simply does not count.

Axes: N spectra, P pixels, S latents, Z = S + 1 (the latents and a constant 1), Q entries of a
symmetric S x S (or Z x Z) matrix written as one row.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch
from training.model import Denoiser, Output

START_ROWS = 1024
"Spectra that the first components come from; EM takes it from there."
FIRST_SCATTER = 1e-4
"Variance that the scatter starts from: one per cent of the normalised flux."


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: PositiveInt = 40
    "Latents S."
    ridge: NonNegativeFloat = 1.0
    "Weight of the prior W ~ N(0, 1) in normalised flux: it matters only where hardly any data is."
    scatter: bool = False
    "Learn for each pixel the variance that the components leave; it is added to the noise."


class Posterior(NamedTuple):
    """What the data say of the latents of N spectra, in float64."""

    mean: Tensor
    "(N, S)"
    covariance: Tensor
    "(N, S, S)"
    minus_two_log: Tensor
    "(N,) -2 ln of the marginal likelihood, without its constants."


class PPCA(Denoiser):
    """Mean spectrum and loadings; W^T W is diagonal, widest first."""

    fit = "sums"
    mean: Tensor
    loading: Tensor
    scatter: Tensor
    unsure: Tensor

    def __init__(self, pixels: int, options: Options) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("mean", torch.ones(pixels))
        self.register_buffer("loading", torch.zeros(pixels, options.components))
        first = FIRST_SCATTER if options.scatter else 0.0
        self.register_buffer("scatter", torch.full((pixels,), first))
        # Variance of the mean, and of each loading, of a pixel: 1 over all the weight it has had.
        self.register_buffer("unsure", torch.zeros(pixels))
        self._kept: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Posterior mean, its standard deviation in each pixel, latents and their covariance."""
        found = self._posterior(x, self._known(weight))
        latent = found.mean.to(x.dtype)
        covariance = found.covariance.to(x.dtype)
        # The loadings are learnt from finitely many spectra. As E[t t^T] = 1, their errors are
        # alike and independent; at 2,100 spectra they are half of the variance.
        learnt = (1 + latent.square().sum(1, keepdim=True)) * self.unsure
        sigma = (self._spread(covariance) + learnt + self.scatter).sqrt()
        return Output(self.decode(latent), sigma, latent, covariance)

    def decode(self, latent: Tensor) -> Tensor:
        """The spectrum of these latents."""
        return self.mean + latent @ self.loading.T

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Mean and principal components of some spectra as the frame fills them."""
        rows: list[Tensor] = []
        for batch in batches():
            rows.append(batch.x[batch.ok])
            if sum(len(x) for x in rows) >= START_ROWS:
                break
        x = torch.cat(rows)[:START_ROWS]
        if len(x) <= self.options.components:
            raise ValueError(
                f"ppca: {len(x)} spectra with data for {self.options.components} components; "
                "ask for fewer components or more spectra"
            )
        self.mean.copy_(x.mean(0))
        distance = (x - self.mean).double()
        # The N x N products are smaller than the P x P covariance and have the same components.
        vectors = torch.linalg.eigh(distance @ distance.T).eigenvectors
        top = vectors[:, -self.options.components :] / len(x) ** 0.5
        self.loading.copy_(_rotated((distance.T @ top).to(self.loading)))

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """E step: the sums that the least squares of every pixel need."""
        known = self._known(batch.weight)
        found = self._posterior(batch.x, known)
        seen = (known > 0).any(1)
        z, zz = _augmented(found, batch.x.dtype)
        sums = {
            "gram": known.T @ zz,
            "cross": (known * batch.x).T @ z,
            "moment": zz[seen].sum(0),
            "count": seen.sum(),
            "objective": found.minus_two_log.sum(),
            "pixels": (known > 0).sum(),
        }
        return sums | (self._residual(batch.x, known, found) if self.options.scatter else {})

    def update(self, sums: dict[str, Tensor]) -> float:
        """M step: least squares for W and mu of each pixel; gives -2 ln L per good pixel."""
        loading, mean = self._least_squares(sums["gram"], sums["cross"])
        # Let the prior of t be N(m, V), estimate both, and absorb them into mu and W: the same
        # family, reached in far fewer steps (parameter-expanded EM, Liu, Rubin & Wu 1998).
        moment = _square(sums["moment"] / sums["count"].clamp(min=1), self.options.components + 1)
        shift = moment[-1, :-1]
        spread = torch.linalg.cholesky(moment[:-1, :-1] - torch.outer(shift, shift))
        self.mean.copy_(mean + loading @ shift)
        self.loading.copy_(_rotated(loading @ spread))
        self.unsure.copy_((sums["gram"][:, -1] + self.options.ridge).reciprocal())
        if self.options.scatter:
            # Fisher scoring; a variance is not negative.
            step = sums["score"] / sums["information"].clamp(min=1)
            self.scatter.copy_((self.scatter + step).clamp(min=0))
        return float(sums["objective"] / sums["pixels"].clamp(min=1))

    def _known(self, weight: Tensor) -> Tensor:
        return weight / (1 + weight * self.scatter)

    def _posterior(self, x: Tensor, known: Tensor) -> Posterior:
        # Float32 products are enough: an entry's error is relative to its own row and column, and
        # the loadings are orthogonal. What is solved is in float64.
        size = self.options.components
        eye = torch.eye(size, dtype=torch.float64, device=x.device)
        # E[(x - W t)^2] over what is not known of W: t is drawn towards 0, or the noise that the
        # loadings have learnt would be taken for signal (variational Bayes; Bishop 1999).
        doubt = (known @ self.unsure).double()
        precision = _square((known @ self._outers()).double(), size)
        precision += (1 + doubt)[:, None, None] * eye
        distance = x - self.mean
        pull = ((known * distance) @ self.loading).double()
        root = torch.linalg.cholesky(precision)
        covariance = torch.cholesky_inverse(root)
        mean = (covariance @ pull.unsqueeze(-1)).squeeze(-1)
        log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
        log_noise = torch.where(known > 0, known, 1).log().sum(1, dtype=torch.float64)
        chi2 = (known * distance.square()).sum(1, dtype=torch.float64) - (pull * mean).sum(1)
        return Posterior(mean, covariance, chi2 + doubt + log_det - log_noise)

    def _outers(self) -> Tensor:
        """Products (P, Q) of the loadings, kept until these change: 40 % of the time of a batch."""
        state = (self.loading.device, self.loading.data_ptr(), self.loading._version)
        if self._kept is None or self._kept[0] != state:
            self._kept = state, _outer(self.loading)
        return self._kept[1]

    def _spread(self, covariance: Tensor) -> Tensor:
        """Variance (N, P) of W t: the diagonal of W C W^T."""
        row, column = _pairs(self.options.components, covariance.device)
        twice = torch.where(row == column, 1, 2)
        return ((covariance[:, row, column] * twice) @ self._outers().T).clamp(min=0)

    def _residual(self, x: Tensor, known: Tensor, found: Posterior) -> dict[str, Tensor]:
        left = x - self.decode(found.mean.to(x.dtype))
        square = left.square() + self._spread(found.covariance.to(x.dtype))
        return {
            "score": (known.square() * square - known).sum(0),
            "information": known.square().sum(0),
        }

    def _least_squares(self, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        size = self.options.components + 1
        normal = _square(gram, size)
        normal.diagonal(dim1=1, dim2=2).add_(self.options.ridge)
        # The ridge draws W towards 0, but mu towards where it is.
        right = cross.clone()
        right[:, -1] += self.options.ridge * self.mean
        root = torch.linalg.cholesky(normal)
        solved = torch.cholesky_solve(right.unsqueeze(-1), root).squeeze(-1)
        return solved[:, :-1], solved[:, -1]


def _augmented(found: Posterior, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """E[z] (N, Z) and E[z z^T] (N, Q) of z = (t, 1)."""
    z = torch.nn.functional.pad(found.mean, (0, 1), value=1.0)
    square = z.unsqueeze(2) * z.unsqueeze(1)
    square[:, :-1, :-1] += found.covariance
    row, column = _pairs(z.shape[1], z.device)
    return z.to(dtype), square[:, row, column].to(dtype)


def _pairs(size: int, device: torch.device) -> Tensor:
    return torch.triu_indices(size, size, device=device)


def _outer(matrix: Tensor) -> Tensor:
    """Products (P, Q) of the columns of a matrix (P, S)."""
    row, column = _pairs(matrix.shape[1], matrix.device)
    return matrix[:, row] * matrix[:, column]


def _square(packed: Tensor, size: int) -> Tensor:
    """The symmetric matrices (..., size, size) of packed rows (..., Q)."""
    full = packed.new_empty((*packed.shape[:-1], size, size))
    row, column = _pairs(size, packed.device)
    full[..., row, column] = packed
    full[..., column, row] = packed
    return full


def _rotated(loading: Tensor) -> Tensor:
    """The same W W^T with orthogonal columns, widest first, each with its largest entry > 0."""
    wide = loading.double()
    vectors = torch.linalg.eigh(wide.T @ wide).eigenvectors.flip(1)
    turned = wide @ vectors
    largest = turned.gather(0, turned.abs().argmax(0, keepdim=True))
    signed: Tensor = turned * torch.where(largest < 0, -1.0, 1.0)
    return signed


def build(grid: Grid, **options: object) -> PPCA:
    """A factor model on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are as many components as pixels.
    """
    chosen = Options.model_validate(options)
    if chosen.components >= grid.size:
        raise ValueError(f"ppca: {chosen.components} components of {grid.size} pixels; keep fewer")
    return PPCA(grid.size, chosen)
