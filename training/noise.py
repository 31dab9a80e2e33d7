"""Noise: what is drawn before the frame, on the pixels of the survey.

Drawn there, it is rebinned as the survey's own noise is, and as correlated from pixel to pixel.
Axes: N spectra, L observed pixels.
"""

import numpy as np
from numpy.typing import NDArray

from training.augment import Augment
from training.source import Arrays

C_KMS = 299792.458


def drawn(arrays: Arrays, augment: Augment, random: np.random.Generator) -> Arrays:
    """Spectra with the redshift and the noise of one epoch.

    Parameters
    ----------
    arrays : dict
        flux and ivar (N, L) float32, z and ebv (N,); with an exact target, also target and
        target_ivar (N, L), the latter 0 where the target is not known.

    Returns
    -------
    dict
        The same, anew; with a target, if the noise makes one.
    """
    found = dict(arrays)
    if augment.redshift:
        wrong = random.normal(0, augment.redshift / C_KMS, len(arrays["z"]))
        found["z"] = (1 + arrays["z"]) * (1 + wrong) - 1
    if augment.noise == "fresh":
        return found | fresh(found, random)
    if augment.noise == "split":
        return found | split(found, augment.share, random)
    return found


def fresh(arrays: Arrays, random: np.random.Generator) -> Arrays:
    """The target with noise of the survey's ivar; no data where one of the two is missing."""
    known = (arrays["ivar"] > 0) & (arrays["target_ivar"] > 0)
    noisy = arrays["target"] + error(arrays["ivar"], random)
    return {
        "flux": np.where(known, noisy, np.float32(0)),
        "ivar": np.where(known, arrays["ivar"], np.float32(0)),
    }


def split(arrays: Arrays, share: float, random: np.random.Generator) -> Arrays:
    """Two spectra of independent noise, made of one.

    Notes
    -----
    With e of the same variance v = 1/ivar as the noise n of the flux, flux + k e has the variance
    (1 + k^2) v, flux - e / k has (1 + 1 / k^2) v, and n + k e and n - e / k are uncorrelated
    (Pang et al. 2021).
    """
    flux, ivar = arrays["flux"], arrays["ivar"]
    added = error(ivar, random)
    k = np.float32(share)
    return {
        "flux": flux + k * added,
        "ivar": ivar / (1 + k**2),
        "target": flux - added / k,
        "target_ivar": ivar / (1 + 1 / k**2),
    }


def error(ivar: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise (N, L) of that inverse variance; 0 where there is no data."""
    unit = random.standard_normal(ivar.shape, dtype=np.float32)
    return np.divide(unit, np.sqrt(ivar), out=np.zeros_like(unit), where=ivar > 0)
