"""Ca II H and K in one band; bands in air A."""

from pipeline.definition import Atomic

INDICES = (
    Atomic(
        name="CaHK",
        blue=(3806.5, 3833.8),
        feature=(3899.5, 4003.5),
        red=(4020.7, 4052.4),
        reference="Serven et al. 2005, ApJ 627, 754",
    ),
)
