"""The 20 Lick indices besides the Balmer lines; bands in air A.

Measured at the resolution of the spectrum, not smoothed to that of the Lick/IDS spectrograph.
"""

from pipeline.definition import Atomic

TRAGER_98 = "Trager et al. 1998, ApJS 116, 1"

INDICES = (
    Atomic(
        name="CN1",
        blue=(4080.125, 4117.625),
        feature=(4142.125, 4177.125),
        red=(4244.125, 4284.125),
        units="mag",
        reference=TRAGER_98,
    ),
    Atomic(
        name="CN2",
        blue=(4083.875, 4096.375),
        feature=(4142.125, 4177.125),
        red=(4244.125, 4284.125),
        units="mag",
        reference=TRAGER_98,
    ),
    Atomic(
        name="Ca4227",
        blue=(4211.0, 4219.75),
        feature=(4222.25, 4234.75),
        red=(4241.0, 4251.0),
        reference=TRAGER_98,
    ),
    Atomic(
        name="G4300",
        blue=(4266.375, 4282.625),
        feature=(4281.375, 4316.375),
        red=(4318.875, 4335.125),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe4383",
        blue=(4359.125, 4370.375),
        feature=(4369.125, 4420.375),
        red=(4442.875, 4455.375),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Ca4455",
        blue=(4445.875, 4454.625),
        feature=(4452.125, 4474.625),
        red=(4477.125, 4492.125),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe4531",
        blue=(4504.25, 4514.25),
        feature=(4514.25, 4559.25),
        red=(4560.5, 4579.25),
        reference=TRAGER_98,
    ),
    Atomic(
        name="C2_4668",
        blue=(4611.5, 4630.25),
        feature=(4634.0, 4720.25),
        red=(4742.75, 4756.5),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe5015",
        blue=(4946.5, 4977.75),
        feature=(4977.75, 5054.0),
        red=(5054.0, 5065.25),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Mg1",
        blue=(4895.125, 4957.625),
        feature=(5069.125, 5134.125),
        red=(5301.125, 5366.125),
        units="mag",
        reference=TRAGER_98,
    ),
    Atomic(
        name="Mg2",
        blue=(4895.125, 4957.625),
        feature=(5154.125, 5196.625),
        red=(5301.125, 5366.125),
        units="mag",
        reference=TRAGER_98,
    ),
    Atomic(
        name="Mgb",
        blue=(5142.625, 5161.375),
        feature=(5160.125, 5192.625),
        red=(5191.375, 5206.375),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe5270",
        blue=(5233.15, 5248.15),
        feature=(5245.65, 5285.65),
        red=(5285.65, 5318.15),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe5335",
        blue=(5304.625, 5315.875),
        feature=(5312.125, 5352.125),
        red=(5353.375, 5363.375),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe5406",
        blue=(5376.25, 5387.5),
        feature=(5387.5, 5415.0),
        red=(5415.0, 5425.0),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe5709",
        blue=(5672.875, 5696.625),
        feature=(5696.625, 5720.375),
        red=(5722.875, 5736.625),
        reference=TRAGER_98,
    ),
    Atomic(
        name="Fe5782",
        blue=(5765.375, 5775.375),
        feature=(5776.625, 5796.625),
        red=(5797.875, 5811.625),
        reference=TRAGER_98,
    ),
    Atomic(
        name="NaD",
        blue=(5860.625, 5875.625),
        feature=(5876.875, 5909.375),
        red=(5922.125, 5948.125),
        reference=TRAGER_98,
    ),
    Atomic(
        name="TiO1",
        blue=(5816.625, 5849.125),
        feature=(5936.625, 5994.125),
        red=(6038.625, 6103.625),
        units="mag",
        reference=TRAGER_98,
    ),
    Atomic(
        name="TiO2",
        blue=(6066.625, 6141.625),
        feature=(6189.625, 6272.125),
        red=(6372.625, 6415.125),
        units="mag",
        reference=TRAGER_98,
    ),
)
