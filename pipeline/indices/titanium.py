"""TiO bands besides those of Lick, which tell dwarfs from giants; bands in air A.

Side bands of bTiO are side bands of C2_4668 and Hbeta, which are in air.
"""

from pipeline.definition import Atomic

SPINIELLO_14 = "Spiniello et al. 2014, MNRAS 438, 1483"

INDICES = (
    Atomic(
        name="bTiO",
        blue=(4742.75, 4756.5),
        feature=(4758.5, 4800.0),
        red=(4827.875, 4847.875),
        units="mag",
        reference=SPINIELLO_14,
    ),
    Atomic(
        name="aTiO",
        blue=(5420.0, 5442.0),
        feature=(5445.0, 5600.0),
        red=(5630.0, 5655.0),
        units="mag",
        reference=SPINIELLO_14,
    ),
    Atomic(
        name="TiO2sdss",
        blue=(6066.625, 6141.625),
        feature=(6189.625, 6272.125),
        red=(6422.0, 6455.0),
        units="mag",
        reference="La Barbera et al. 2013, MNRAS 433, 3017",
    ),
)
