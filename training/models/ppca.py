"""PPCA: a factor model that knows the noise of every pixel, learnt by EM from noisy spectra alone.

x = mu + W t + noise, with t ~ N(0, 1) and noise of variance 1/weight (Tipping & Bishop 1999, with
each pixel's own variance; Bailey 2012, Delchambre 2015). The output is the posterior mean, so it
comes with a covariance; a missing pixel has weight 0 and simply does not count.
"""

from storage.grid import Grid
from training.expectation import Expectation, FactorOptions


class Options(FactorOptions):
    """What a card may say of this model."""


class PPCA(Expectation):
    """One Gaussian of latents."""


def build(grid: Grid, **options: object) -> PPCA:
    """A factor model on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are as many components as pixels.
    """
    chosen = Options.model_validate(options)
    chosen.check("ppca", grid)
    return PPCA(grid.size, chosen)
