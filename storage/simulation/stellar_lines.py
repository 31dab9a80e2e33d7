"""Lines and bands of F to M stars from 3400 to 10,600 A: positions are real, strengths are a toy's.

Wavelengths are written in air, as tables of lines are, and given in vacuum. Strengths were set by
eye so that the Ca II triplet, Balmer and Paschen lines, the TiO bands and the crowd of weak lines
have the right order; none is a laboratory value.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.grid import Float, air_to_vacuum


class Strong(NamedTuple):
    """A line with damping wings."""

    air: float
    "Wavelength in air; A."
    element: str
    "What its abundance follows: alpha, iron, or hydrogen, which has none."
    depth: float
    "log10 of the optical depth at 4250 K, log g 2, solar abundance."
    warmth: float
    "Change of that per unit of 5040 K / T."
    abundance: float
    "Change per dex of [X/H]."
    gravity: float
    "Change per dex of log g."
    damping: float
    "log10 of the damping parameter at log g 2."
    damping_gravity: float
    "Change of that per dex of log g."


def _several(
    lines: tuple[tuple[float, float], ...], element: str, *rest: float
) -> tuple[Strong, ...]:
    return tuple(Strong(air, element, depth, *rest) for air, depth in lines)


# The wings carry the width: EW goes as sqrt(depth x damping). The Ca II triplet weakens with
# gravity (Cenarro et al. 2002), neutral lines strengthen, hydrogen strengthens with heat.
_CALCIUM = ((8498.02, 1.80), (8542.09, 2.50), (8662.14, 2.35))
_CALCIUM_HK = ((3933.66, 4.2), (3968.47, 4.0))
_MAGNESIUM = (
    (3829.36, 2.3), (3832.30, 2.6), (3838.29, 2.8), (4571.10, 0.7), (5167.32, 2.1), (5172.68, 2.5),
    (5183.60, 2.7), (5528.40, 1.2), (8806.76, 1.1),
)  # fmt: skip
_ALKALI = (
    (5889.95, 2.5), (5895.92, 2.2), (7664.90, 1.25), (7698.96, 1.05), (8183.26, 0.55),
    (8194.82, 0.85),
)  # fmt: skip
_IRON_STRONG = (
    (3719.93, 2.6), (3734.86, 2.7), (3737.13, 2.5), (3745.56, 2.4), (3749.49, 2.5), (3758.23, 2.4),
    (3820.43, 2.5), (3859.91, 2.4), (4045.81, 2.2), (4063.59, 2.0), (4071.74, 1.9), (4271.76, 1.8),
    (4307.90, 1.8), (4325.76, 1.8), (4383.55, 2.0), (4404.75, 1.8), (5269.54, 1.5), (5328.04, 1.4),
    (5371.49, 1.2), (5446.92, 1.1), (6494.98, 0.7),
)  # fmt: skip
_BALMER = ((6562.80, 1.30), (4861.33, 1.00), (4340.46, 0.75), (4101.74, 0.55), (3970.07, 0.35))
_PASCHEN = (
    (10049.37, -0.2), (9545.97, -0.35), (9229.01, -0.5), (9014.91, -0.6), (8862.78, -0.7),
    (8750.47, -0.8), (8665.02, -0.9), (8598.39, -1.0), (8545.38, -1.1), (8502.48, -1.2),
    (8467.25, -1.3), (8437.95, -1.4), (8413.32, -1.5),
)  # fmt: skip
STRONG = (
    *_several(_CALCIUM, "alpha", 1.5, 0.50, -0.18, -0.75, 0.09),
    *_several(_CALCIUM_HK, "alpha", 0.5, 0.50, -0.10, -0.30, 0.10),
    Strong(4226.73, "alpha", 2.60, 3.0, 0.70, -0.05, -0.70, 0.30),
    *_several(_MAGNESIUM, "alpha", 1.2, 0.60, -0.05, -0.70, 0.30),
    *_several(_ALKALI, "iron", 3.0, 0.70, -0.05, -0.60, 0.32),
    *_several(_IRON_STRONG, "iron", 1.5, 0.70, -0.05, -1.00, 0.20),
    Strong(7771.94, "alpha", -0.70, -6.0, 0.70, -0.20, -1.50, 0.00),
    *_several(_BALMER, "hydrogen", -3.2, 0.0, -0.05, -0.60, 0.10),
    *_several(_PASCHEN, "hydrogen", -4.5, 0.0, -0.05, 0.10, 0.10),
)
"Ca II and I, Mg I, Na I and K I, Fe I; O I and hydrogen, which fade in the cool."

# Excitation of the lower level (eV), log10 depth as above, air wavelengths.
_IRON = (
    (1.0, 0.9, (4143.87, 4202.03, 4250.79, 4260.47, 4415.12, 4528.61, 4920.50, 4957.60, 5012.07,
                5041.76, 5051.63, 5083.34, 5107.45, 5110.41, 5194.94, 5227.19, 5232.94, 5270.36,
                5397.13, 5405.77, 5429.70, 5434.52, 5455.61)),
    (2.2, 0.55, (6065.48, 6136.62, 6137.69, 6191.56, 6230.72, 6252.56, 6393.60, 6421.35, 6430.85,
                 6546.24, 6592.91, 6677.99, 8327.06, 8387.77, 8468.41, 8514.07, 8688.63, 8824.22)),
    (2.9, 0.15, (7723.20, 7912.87, 8047.60, 8075.15, 8365.63, 8582.26, 8611.80, 8621.60, 8674.75,
                 8699.45, 8757.19, 8838.43)),
    (4.3, 0.00, (7130.92, 7164.45, 7187.32, 7207.39, 7389.39, 7411.15, 7445.75, 7495.06, 7511.02,
                 7531.14, 7568.90, 7583.79, 7586.02, 7710.36, 7748.27, 7780.56, 7832.20, 7937.14,
                 7945.85, 7998.94, 8028.31, 8046.05, 8085.17, 8198.92, 8207.74, 8220.38, 8232.31,
                 8239.13, 8248.13, 8293.51, 8339.40, 8439.56, 8471.74, 8526.67, 8571.80, 8598.83,
                 8713.19, 8763.97, 8793.34, 8804.62)),
)  # fmt: skip
_TITANIUM = (
    (0.8, 0.35, (4533.24, 4534.78, 4981.73, 4991.07, 4999.50, 5007.21, 5064.65, 5173.74, 5192.97,
                 5210.39, 8364.24, 8377.90, 8382.53, 8396.90, 8412.36, 8426.51, 8434.95, 8435.65,
                 8518.03, 8548.09, 8675.38, 8682.99, 8692.34, 8734.70)),
    (1.4, -0.05, (5866.45, 6258.10, 6261.10, 7209.44, 7216.19, 7244.85, 7251.71, 7344.70, 7357.73,
                  7364.10)),
)  # fmt: skip
_SILICON = (
    (5.8, -0.25, (7235.33, 7275.29, 7289.18, 7405.77, 7409.08, 7415.95, 7423.50, 7680.27, 7918.38,
                  7932.35, 7944.00, 8093.24, 8502.22, 8556.78, 8595.96, 8648.46, 8728.01, 8742.45,
                  8752.01, 8790.39)),
    (5.6, -0.10, (7387.69, 7657.60, 7691.55, 8213.03, 8712.69, 8717.83, 8736.02)),
)  # fmt: skip
_CALCIUM_WEAK = (
    (2.5, 0.6, (5581.97, 5588.75, 5594.46, 5857.45, 6102.72, 6122.22, 6162.17, 6439.07, 6449.81,
                6462.57, 6471.66, 6493.78, 6499.65, 6717.68)),
)  # fmt: skip
_NICKEL = (
    (1.9, 0.25, (5476.90, 6643.63, 6767.77, 7110.90, 7122.20, 7393.60, 7409.35, 7414.50, 7422.28,
                 7714.31, 7788.94)),
    (3.7, 0.00, (7522.76, 7525.11, 7555.60, 7574.05, 7727.61, 7748.89, 7797.59, 8770.67)),
)  # fmt: skip
_FAINT = 4400
_FROM, _TO = 3400.0, 10700.0

TIO = (
    (4761.0, 0.50, 60.0), (4954.6, 0.80, 60.0), (5166.8, 0.95, 80.0), (5448.2, 0.70, 80.0),
    (5597.0, 0.35, 60.0), (5759.0, 0.40, 60.0), (5847.6, 0.55, 70.0), (6158.5, 0.85, 90.0),
    (6569.0, 0.30, 60.0), (6651.3, 0.60, 80.0), (7053.9, 0.60, 90.0), (7087.6, 0.50, 90.0),
    (7125.6, 0.45, 100.0), (7589.0, 0.30, 70.0), (7628.0, 0.25, 70.0), (7666.0, 0.35, 90.0),
    (8205.5, 0.12, 80.0), (8432.0, 0.13, 60.0), (8442.0, 0.10, 60.0), (8452.0, 0.08, 60.0),
    (8859.6, 0.35, 120.0), (9209.0, 0.20, 90.0),
)  # fmt: skip
"Band heads of TiO: air A, relative strength, length over which it fades to the red (A)."
VO = ((7334.0, 0.6, 45.0), (7393.0, 0.7, 60.0), (7851.0, 1.0, 90.0), (8521.0, 0.5, 60.0))
"Band heads of VO, cooler still."
CN = (
    (3883.0, 12.0, -50.0), (4216.0, 4.0, -60.0), (7088.0, 0.6, 60.0), (7876.0, 1.0, 110.0),
    (8066.0, 0.7, 90.0), (8270.0, 0.4, 70.0), (9140.0, 0.8, 100.0),
)  # fmt: skip
"Band heads of CN, of metal-rich giants; a length below 0 fades to the blue."
HYDRIDES = ((4315.0, 1.4, -25.0), (5211.0, 1.0, -45.0), (6385.0, 0.45, 30.0), (6830.0, 0.6, 60.0))
"Band heads of CH, MgH and CaH, stronger in dwarfs."


class Weak(NamedTuple):
    """Lines without much of a wing, (K,) each."""

    wavelength: Float
    "Vacuum A."
    depth: Float
    "log10 of the optical depth at 4250 K, log g 2, solar abundance."
    excitation: Float
    "Lower level; eV."
    alpha: NDArray[np.bool_]
    "Whether the element follows [alpha/M]."
    width: Float
    "Gaussian sigma; km/s."


@lru_cache(maxsize=1)
def weak() -> Weak:
    """Named lines of Fe, Ti, Si, Ca and Ni, and 4400 faint ones that are drawn, once and for all.

    Faint lines stand for the crowd that no one fits: their number falls with the cube of the
    wavelength, and each ten times deeper one is five times rarer.
    """
    elements = ((_IRON, 0), (_TITANIUM, 1), (_SILICON, 1), (_CALCIUM_WEAK, 1), (_NICKEL, 0))
    rows = [
        (air, depth, chi, alpha)
        for element, alpha in elements
        for chi, depth, lines in element
        for air in lines
    ]
    rng = np.random.default_rng(20240911)
    air, depth, excitation, alpha = np.array(rows).T
    ends = _FROM**-2.0, _TO**-2.0
    faint = (ends[0] + (ends[1] - ends[0]) * rng.random(_FAINT)) ** -0.5
    # The blue is crowded with deeper lines, too: resonance lines lie there.
    deeper = 1.3 * np.clip((6500.0 - faint) / 2500.0, 0.0, 1.2)
    crowd = -1.7 + np.minimum(rng.exponential(1 / np.log(5.0), _FAINT), 1.6) + deeper
    scatter = rng.normal(0.0, 0.2, air.size)
    return Weak(
        wavelength=air_to_vacuum(np.concatenate([air, faint])),
        depth=np.concatenate([depth + scatter, crowd]),
        excitation=np.concatenate([excitation, rng.uniform(0.5, 5.0, _FAINT)]),
        alpha=np.concatenate([alpha > 0, rng.random(_FAINT) < 0.3]),
        width=rng.uniform(5.0, 6.5, air.size + _FAINT),
    )
