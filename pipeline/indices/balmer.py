"""Balmer absorption: Hdelta and Hgamma, wide (A) and narrow (F), and Hbeta; bands in air A.

Emission that fills the line is not taken out: subtract it first where that matters.
"""

from pipeline.definition import Atomic

TRAGER_98 = "Trager et al. 1998, ApJS 116, 1"
WORTHEY_OTTAVIANI_97 = "Worthey & Ottaviani 1997, ApJS 111, 377"

INDICES = (
    Atomic(
        name="HdeltaA",
        blue=(4041.6, 4079.75),
        feature=(4083.5, 4122.25),
        red=(4128.5, 4161.0),
        reference=WORTHEY_OTTAVIANI_97,
    ),
    Atomic(
        name="HdeltaF",
        blue=(4057.25, 4088.5),
        feature=(4091.0, 4112.25),
        red=(4114.75, 4137.25),
        reference=WORTHEY_OTTAVIANI_97,
    ),
    Atomic(
        name="HgammaA",
        blue=(4283.5, 4319.75),
        feature=(4319.75, 4363.5),
        red=(4367.25, 4419.75),
        reference=WORTHEY_OTTAVIANI_97,
    ),
    Atomic(
        name="HgammaF",
        blue=(4283.5, 4319.75),
        feature=(4331.25, 4352.25),
        red=(4354.75, 4384.75),
        reference=WORTHEY_OTTAVIANI_97,
    ),
    Atomic(
        name="Hbeta",
        blue=(4827.875, 4847.875),
        feature=(4847.875, 4876.625),
        red=(4876.625, 4891.625),
        reference=TRAGER_98,
    ),
)
