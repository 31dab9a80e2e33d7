"""The 4000 A break, in its three common definitions; bands in air A."""

from pipeline.definition import Break

INDICES = (
    Break(
        name="Dn4000",
        blue=(3850.0, 3950.0),
        red=(4000.0, 4100.0),
        reference="Balogh et al. 1999, ApJ 527, 54",
    ),
    Break(
        name="D4000",
        blue=(3750.0, 3950.0),
        red=(4050.0, 4250.0),
        reference="Bruzual 1983, ApJ 273, 105",
    ),
    Break(
        name="B4000",
        blue=(3750.0, 3950.0),
        red=(4050.0, 4250.0),
        density="lambda",
        reference="Gorgas et al. 1999, A&AS 139, 29",
    ),
)
