"""MPPCA: PPCA of several kinds of galaxies, learnt by EM from noisy spectra alone.

x = mu + W t + noise, with t from a sum of Gaussians: kinds share mean and loadings, and each has a
centre, a covariance and a share of its own (Tipping & Bishop 1999; deconvolution of the latents as
in Bovy, Hogg & Roweis 2011). The posterior is then a sum of Gaussians in closed form; the output is
its mean, with the covariance of all of it. Where a kind has few spectra, its covariance is drawn
towards the mean covariance of all kinds.

Axes: N spectra, K kinds, S latents, Q entries of a symmetric matrix of S + 1 written as one row.
"""

from collections.abc import Callable, Iterable

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch
from training.expectation import Expectation, FactorOptions, Turn, first
from training.posterior import Evidence, Gaussian, Posterior, augmented, posterior, square

START_ROWS = 1024
"Spectra that the first centres are chosen from."


class Options(FactorOptions):
    """What a card may say of this model."""

    kinds: PositiveInt = 12
    "Gaussians K; 1 is ppca."
    shared: PositiveFloat = 100.0
    "Spectra of the mean kind that the covariance of each kind counts beside its own."
    plain: PositiveInt = 12
    """Epochs as one Gaussian before the kinds count: kinds learnt together with loadings that are
    not yet known fit odd spectra with them (Dn4000 at S/N 10-12 is then worse than of ppca)."""


class MPPCA(Expectation):
    """Several Gaussians of latents, of mean 0 and covariance 1 as a whole."""

    share: Tensor
    centre: Tensor
    covariance: Tensor
    epochs: Tensor

    def __init__(self, pixels: int, options: Options) -> None:
        super().__init__(pixels, options)
        self.kinds, self.shared, self.plain = options.kinds, options.shared, options.plain
        size = options.components
        self.register_buffer("share", torch.full((self.kinds,), 1 / self.kinds))
        self.register_buffer("centre", torch.zeros(self.kinds, size))
        self.register_buffer("covariance", torch.eye(size).repeat(self.kinds, 1, 1))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Choose spectra that are unlike each other as the centres; the seed decides which."""
        super().start(batches, seed)
        rows = first(batches(), START_ROWS)
        found = super().infer(self.evidence(rows.x, self.known(rows.weight)))
        self.centre.copy_(far_apart(found.mean, self.kinds, seed))

    def infer(self, found: Evidence) -> Posterior:
        """Mean and covariance of the sum of Gaussians, and its marginal likelihood."""
        return _merged(*self._sorted(found))

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """E step: the sums of one Gaussian, and the moments of every kind."""
        known = self.known(batch.weight)
        seen = (known > 0).any(1, keepdim=True)
        evidence = self.evidence(batch.x, known)
        if self.epochs < self.plain:
            found = super().infer(evidence)
            near = torch.cdist(found.mean, self.centre.double()).argmin(1)
            share = torch.nn.functional.one_hot(near, self.kinds) * seen
            moments = share.double().T @ augmented(found.mean, found.covariance)[1]
        else:
            each, share, log = self._sorted(evidence)
            found, moments = _merged(each, share, log), _moments(each, share * seen)
        return self.sums(batch.x, known, found) | {"kinds": moments}

    def update(self, sums: dict[str, Tensor]) -> float:
        """M step; gives -2 ln L per good pixel."""
        self._settle(sums["kinds"], self.absorb(sums))
        self.epochs += 1
        return float(sums["objective"] / sums["pixels"].clamp(min=1))

    def _sorted(self, found: Evidence) -> tuple[list[Posterior], Tensor, Tensor]:
        """The posterior if a spectrum were of each kind, how likely that is (N, K), and ln L."""
        each = [
            posterior(found, Gaussian.of(centre, covariance))
            for centre, covariance in zip(self.centre, self.covariance, strict=True)
        ]
        log = self.share.double().log() - 0.5 * torch.stack([p.minus_two_log for p in each], 1)
        return each, log.softmax(1), log.logsumexp(1)

    def _settle(self, moments: Tensor, turn: Turn) -> None:
        """Share, centre and covariance of every kind, from its moments (K, Q), in new latents."""
        full = square(moments, self.centre.shape[1] + 1)
        count = full[:, -1, -1].clamp(min=1e-6)
        centre = full[:, -1, :-1] / count[:, None]
        about = full[:, :-1, :-1] - count[:, None, None] * centre[:, :, None] * centre[:, None]
        common = about.sum(0) / count.sum()
        own = (about + self.shared * common) / (count + self.shared)[:, None, None]
        self.share.copy_((count + 1) / (count + 1).sum())
        self.centre.copy_((centre - turn.shift) @ turn.by.T)
        own = turn.by @ own @ turn.by.T
        self.covariance.copy_((own + own.mT) / 2)


def _merged(each: list[Posterior], share: Tensor, log: Tensor) -> Posterior:
    """The sum of Gaussians as one: its mean and its whole covariance."""
    means = torch.stack([part.mean for part in each], 1)
    mean = (share[:, :, None] * means).sum(1)
    apart = means - mean[:, None]
    covariance = torch.einsum("nk,nki,nkj->nij", share, apart, apart)
    for number, part in enumerate(each):
        covariance += share[:, number, None, None] * part.covariance
    return Posterior(mean, covariance, -2 * log)


def _moments(each: list[Posterior], share: Tensor) -> Tensor:
    """Sums over spectra of share times E[z z^T], (K, Q), z = (t, 1)."""
    return torch.stack(
        [weight @ augmented(*part[:2])[1] for part, weight in zip(each, share.T, strict=True)]
    )


def far_apart(points: Tensor, count: int, seed: int) -> Tensor:
    """So many of the points (N, S), each unlike the others: the start of k-means.

    Arthur & Vassilvitskii 2007: drawn by the squared distance from those that are chosen.
    """
    random = torch.Generator().manual_seed(seed)
    chosen = points[torch.randint(len(points), (1,), generator=random).to(points.device)]
    while len(chosen) < count:
        away = torch.cdist(points, chosen).amin(1).square().cpu() + 1e-12
        more = torch.multinomial(away, 1, generator=random).to(points.device)
        chosen = torch.cat([chosen, points[more]])
    return chosen


def build(grid: Grid, **options: object) -> MPPCA:
    """A mixture of factor models on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are as many components as pixels.
    """
    chosen = Options.model_validate(options)
    chosen.check("mppca", grid)
    return MPPCA(grid.size, chosen)
