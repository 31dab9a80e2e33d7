"""A table of errors of two indices, by hand."""

from training.calibrated import Calibrated, Column, Curve

TABLED = ("Dn4000", "HdeltaF")
FACTOR, SLOPE, INTERCEPT = 3.0, 0.5, 0.2


def by_hand(error: float = 0.1) -> Calibrated:
    """A table of galaxies at S/N 2 to 32, whose error halves where the S/N doubles."""
    nodes = tuple(2.0**k for k in range(1, 6))
    same = {"scatter": 0.1, "bias": 0.0, "slope": SLOPE, "intercept": INTERCEPT}
    same |= {"factor": FACTOR, "deshrunk_factor": 2 * FACTOR}
    wide = tuple(error * 2 / node for node in nodes)
    column = Column(
        n=(200,) * 5,
        error=wide,
        deshrunk=tuple(2 * e for e in wide),
        **{name: (value,) * 5 for name, value in same.items()},
    )
    indices = dict.fromkeys(TABLED, column)
    curve = Curve(kind="GALAXY", z=(0.02, 0.15), snr=nodes, indices=indices)
    bins = tuple((0.7 * node, 1.4 * node) for node in nodes)
    return Calibrated(recipe="hand", n=200, draws=16, bins=bins, curves=(curve,))
