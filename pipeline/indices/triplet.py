"""The Ca II triplet and the Paschen lines around it; bands in air A.

CaT* takes out of CaT what Paschen lines of hot stars put into it: CaT - 0.93 PaT. Ca1, Ca2 and Ca3
have the same features, each with two of the five side bands. The triplet of Diaz, Terlevich &
Terlevich (1989, MNRAS) is another: 8483-8513, 8527-8557, 8647-8677 A between 8447.5-8462.5
and 8842.5-8857.5 A.
"""

from pipeline.definition import Atomic
from pipeline.index_generic import Generic

CENARRO_01 = "Cenarro et al. 2001, MNRAS 326, 959"
LA_BARBERA_13 = "La Barbera et al. 2013, MNRAS 433, 3017"

CONTINUUM = (
    (8474.0, 8484.0),
    (8563.0, 8577.0),
    (8619.0, 8642.0),
    (8700.0, 8725.0),
    (8776.0, 8792.0),
)
CALCIUM = ((8484.0, 8513.0), (8522.0, 8562.0), (8642.0, 8682.0))
PASCHEN = ((8461.0, 8474.0), (8577.0, 8619.0), (8730.0, 8772.0))

INDICES = (
    Generic(
        name="CaT",
        continuum=CONTINUUM,
        features=CALCIUM,
        factors=(1.0, 1.0, 1.0),
        reference=CENARRO_01,
    ),
    Generic(
        name="PaT",
        continuum=CONTINUUM,
        features=PASCHEN,
        factors=(1.0, 1.0, 1.0),
        reference=CENARRO_01,
    ),
    Generic(
        name="CaT_star",
        continuum=CONTINUUM,
        features=(*CALCIUM, *PASCHEN),
        factors=(1.0, 1.0, 1.0, -0.93, -0.93, -0.93),
        reference=CENARRO_01,
    ),
    Atomic(
        name="Ca1",
        blue=(8474.0, 8484.0),
        feature=(8484.0, 8513.0),
        red=(8563.0, 8577.0),
        reference=LA_BARBERA_13,
    ),
    Atomic(
        name="Ca2",
        blue=(8474.0, 8484.0),
        feature=(8522.0, 8562.0),
        red=(8563.0, 8577.0),
        reference=LA_BARBERA_13,
    ),
    Atomic(
        name="Ca3",
        blue=(8619.0, 8642.0),
        feature=(8642.0, 8682.0),
        red=(8700.0, 8725.0),
        reference=LA_BARBERA_13,
    ),
)
