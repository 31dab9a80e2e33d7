"""Means of Mg and Fe indices: <Fe>, and [MgFe] and [MgFe]', which follow metallicity.

Of the two, [MgFe]' depends the least on [alpha/Fe].
"""

from pipeline.index_composite import Composite

PARTS = ("Mgb", "Fe5270", "Fe5335")

INDICES = (
    Composite(
        name="Fe_mean",
        parts=PARTS[1:],
        first=(0.5, 0.5),
        reference="Gonzalez 1993, PhD thesis, Univ. of California, Santa Cruz",
    ),
    Composite(
        name="MgFe",
        parts=PARTS,
        first=(1.0, 0.0, 0.0),
        second=(0.0, 0.5, 0.5),
        reference="Gonzalez 1993, PhD thesis, Univ. of California, Santa Cruz",
    ),
    Composite(
        name="MgFe_prime",
        parts=PARTS,
        first=(1.0, 0.0, 0.0),
        second=(0.0, 0.72, 0.28),
        reference="Thomas, Maraston & Bender 2003, MNRAS 339, 897",
    ),
)
