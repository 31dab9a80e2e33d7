"""A population of galaxies: parameters that vary together, as in a flux-limited survey.

Mass sets metallicity and star formation; star formation sets the young light and the lines; age
sets the mass-to-light ratio. Every block of 256 rows is drawn whole, from a generator of its own.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from storage.grid import Float
from storage.schema import Field as Column
from storage.simulation import line_statistics, nebula
from storage.simulation.template_files import Medium, library
from storage.simulation.templates import Templates, analytic

BLOCK = 256
"Rows that are drawn together: row i never depends on how many are asked for."

QUIESCENT, STAR_FORMING, ACTIVE = 0, 1, 2
KINDS = "quiescent star_forming active"

PARAMETERS: dict[str, Column] = {
    name: Column(dtype=dtype, units=units, description=description)
    for name, dtype, units, description in (
        ("z", "f8", "1", "redshift of the stars, heliocentric"),
        ("ebv", "f4", "mag", "Galactic E(B-V)"),
        ("population", "u1", "1", "kind of galaxy"),
        ("outlier", "u1", "1", "0 none, 1 broad Balmer lines, 2 heavily reddened"),
        ("age", "f4", "Gyr", "mean log age, by light at 5500 A"),
        ("age_old", "f4", "Gyr", "age of the old stars"),
        ("light_young", "f4", "1", "share of stars younger than 0.3 Gyr in the light"),
        ("light_intermediate", "f4", "1", "share of stars of 0.5-3 Gyr in the light"),
        ("metallicity", "f4", "dex", "stellar [Z/H]"),
        ("alpha_fe", "f4", "dex", "stellar [alpha/Fe]"),
        ("iron_h", "f4", "dex", "stellar [Fe/H] beyond the metallicity"),
        ("sigma_v", "f4", "km/s", "stellar velocity dispersion"),
        ("sigma_gas", "f4", "km/s", "velocity dispersion of the gas"),
        ("velocity_gas", "f4", "km/s", "velocity of the gas, less that of the stars"),
        ("sigma_broad", "f4", "km/s", "width of broad Balmer lines; 0 where there are none"),
        ("ebv_internal", "f4", "mag", "E(B-V) of the stars by dust inside the galaxy"),
        ("logmass", "f4", "dex", "log10 of the stellar mass in solar masses"),
        ("logsfr", "f4", "dex", "log10 of the star formation rate in solar masses per year"),
        ("oh", "f4", "dex", "gas 12 + log(O/H)"),
        ("level", "f4", "1e-17 erg s-1 cm-2 Angstrom-1", "flux at 5500 A rest, without dust"),
        ("ew_halpha", "f4", "Angstrom", "rest equivalent width of narrow Halpha, in emission > 0"),
    )
}
YOUNG, OH = (-0.59, 0.285), (8.71, 0.11)
"Mean and scatter of log light_young and of 12 + log(O/H), star-forming galaxies of mock-v1."


class Population(BaseModel):
    """What is out there; the defaults are those of mock-v1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (0.42, 0.43, 0.15)
    "Relative numbers of quiescent, star-forming, and green or active galaxies."
    z: tuple[PositiveFloat, PositiveFloat] = (0.02, 0.2)
    "Range of redshift, at most 0.25."
    z_peak: PositiveFloat = 0.08
    "Most frequent redshift of the survey."
    sigma_v: tuple[PositiveFloat, PositiveFloat] = (60.0, 300.0)
    "Range of the stellar velocity dispersion, drawn uniformly; km/s."
    gas_scatter: NonNegativeFloat = 0.15
    "Scatter of the width of emission lines; dex."
    velocity: NonNegativeFloat = 70.0
    "Standard deviation of the velocity of the gas against the stars; km/s."
    emission: bool = True
    "Whether gas shines."
    dust: NonNegativeFloat = 1.0
    "Factor on the internal E(B-V)."
    galactic: NonNegativeFloat = 0.03
    "Scale of the exponential distribution of the Galactic E(B-V) above 0.01; mag. 0: no dust."
    galactic_most: NonNegativeFloat = 0.15
    "Largest Galactic E(B-V); mag."
    wiggle: NonNegativeFloat = 0.012
    "Standard deviation of smooth departures of the continuum from the templates, a fraction."
    outliers: float = Field(default=0.01, ge=0.0, le=1.0)
    "Share of odd objects: half with broad Balmer lines, half heavily reddened."
    templates: str = "analytic"
    "Stellar templates: the analytic ones, or files by a pattern such as ``ssp/*.fits``."
    template_medium: Medium = "air"
    "What the wavelengths of such files are in."
    lines: Literal["relations", "desi"] = "relations"
    "Strengths of star-forming galaxies' lines: published relations, or the statistics of DESI."

    @property
    def base(self) -> Templates:
        """The stellar templates themselves."""
        if self.templates == "analytic":
            return analytic()
        return library(self.templates, self.template_medium)

    def draw(self, rng: np.random.Generator) -> dict[str, Float]:
        """`PARAMETERS` of one block, (256,) each; and `wiggles` (256, 5), `line_ratios`
        (256, 18; over narrow Halpha, dust-free) and `weights` (256, T; of the templates)."""
        mass = self._masses(rng)
        stars = _stars(rng, mass, self.base)
        gas = self._gas(rng, mass, stars)
        dynamics = self._dynamics(rng, mass)
        # [alpha/Fe] rises with the potential: Thomas et al. (2010).
        stars["alpha_fe"] += 0.08 * (dynamics["sigma_v"] - 180.0) / 120.0
        wiggles = self.wiggle * rng.standard_normal((BLOCK, 5)) / np.sqrt(np.arange(1, 6))
        return {**mass, **stars, **gas, **dynamics, **self._sight(rng), "wiggles": wiggles}

    def _masses(self, rng: np.random.Generator) -> dict[str, Float]:
        u = rng.random((4, BLOCK))
        edges = np.cumsum(self.shares) / np.sum(self.shares)
        kind = np.searchsorted(edges[:2], u[0], side="right").astype(np.float64)
        z = self._redshift(u[1])
        odd = np.where(u[2] < self.outliers, np.where(u[3] < 0.5, 1.0, 2.0), 0.0)
        # A flux limit makes distant galaxies massive; old ones weigh more for their light.
        heavy = np.array([0.25, -0.25, 0.1])[kind.astype(int)]
        logmass = 10.25 + 2 * np.log10(z / 0.08) + heavy + 0.25 * rng.standard_normal(BLOCK)
        d_sfr, d_oh = 0.3 * rng.standard_normal(BLOCK), 0.07 * rng.standard_normal(BLOCK)
        main = 0.76 * logmass - 7.64 + d_sfr
        below = np.array([1.9, 0.0, 0.9])[kind.astype(int)]
        # Mass-metallicity relation of Curti et al. (2020), its dependence on star formation.
        oh = 8.793 - (0.28 / 1.2) * np.log10(1 + 10 ** (1.2 * (10.02 - logmass)))
        oh += d_oh - 0.15 * d_sfr
        return {
            "z": z, "population": kind, "outlier": odd, "logmass": logmass,
            "logsfr": main - below, "oh": np.clip(oh, 8.0, 9.0),
        }  # fmt: skip

    def _redshift(self, u: Float) -> Float:
        low, high = self.z
        axis = np.linspace(low, high, 512)
        scale = self.z_peak / (4 / 3) ** (2 / 3)
        density = axis**2 * np.exp(-((axis / scale) ** 1.5)) + 1e-9
        whole = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
        return np.interp(u, whole / whole[-1], axis)

    def _gas(
        self, rng: np.random.Generator, mass: dict[str, Float], stars: dict[str, Float]
    ) -> dict[str, Float]:
        kind = mass["population"]
        scatter = rng.standard_normal((2, BLOCK))
        forming = 1.38 + 0.9 * (np.log10(stars["light_young"]) + 0.55) + 0.15 * scatter[0]
        retired, active = -0.35 + 0.35 * scatter[0], 0.75 + 0.35 * scatter[0]
        oh, strengths, redden, spread = mass["oh"], None, 0.2, 0.1
        if self.lines == "desi":
            strengths = _as_in_desi(rng, mass, stars)
            # Balmer decrements are smaller there than in mock-v1, and scatter less.
            redden, spread = 0.15, 0.05
            forming, oh = strengths.ew_halpha, np.where(kind == STAR_FORMING, strengths.oh, oh)
        log_ew = np.choose(kind.astype(int), [retired, forming, active])
        seyfert = (kind == ACTIVE) & (rng.random(BLOCK) < 0.5)
        reddening = np.choose(
            kind.astype(int),
            [
                0.03 * abs(scatter[1]),
                abs(redden + spread * scatter[1]),
                abs(0.15 + 0.1 * scatter[1]),
            ],
        )
        odd = np.where(mass["outlier"] == 2, rng.uniform(0.5, 1.0, BLOCK), 0.0)
        return {
            "ew_halpha": 10.0**log_ew * self.emission,
            "line_ratios": nebula.ratios(rng, kind == STAR_FORMING, seyfert, oh, strengths),
            "oh": np.clip(oh, 8.0, 9.0),
            "ebv_internal": self.dust * reddening + odd,
        }

    def _dynamics(self, rng: np.random.Generator, mass: dict[str, Float]) -> dict[str, Float]:
        sigma_v = rng.uniform(*self.sigma_v, BLOCK)
        centre = np.where(mass["population"] == STAR_FORMING, 75.0, 140.0)
        spread = 10 ** (self.gas_scatter * rng.standard_normal(BLOCK))
        broad = 10 ** rng.uniform(3.1, 3.5, BLOCK)
        return {
            "sigma_v": sigma_v,
            "sigma_gas": np.clip(centre * np.sqrt(sigma_v / 180.0) * spread, 30.0, 400.0),
            "velocity_gas": self.velocity * rng.standard_normal(BLOCK),
            "sigma_broad": np.where(mass["outlier"] == 1, broad, 0.0),
        }

    def _sight(self, rng: np.random.Generator) -> dict[str, Float]:
        ebv = np.minimum(0.01 + rng.exponential(self.galactic, BLOCK), self.galactic_most)
        return {"ebv": ebv * (self.galactic > 0)}


def _as_in_desi(
    rng: np.random.Generator, mass: dict[str, Float], stars: dict[str, Float]
) -> line_statistics.Strengths:
    # Mean and scatter of both among the star-forming galaxies of the default population.
    young = (np.log10(stars["light_young"]) - YOUNG[0]) / YOUNG[1]
    metal = (mass["oh"] - OH[0]) / OH[1]
    return line_statistics.draw(rng, young, metal)


def _stars(rng: np.random.Generator, mass: dict[str, Float], nodes: Templates) -> dict[str, Float]:
    kind = mass["population"].astype(int)
    n = rng.standard_normal((6, BLOCK))
    u = rng.random((4, BLOCK))
    specific = mass["logsfr"] - mass["logmass"]
    log_young = np.choose(
        kind, [-3 + 0.4 * n[0], -0.55 + 0.8 * (specific + 10.0) + 0.15 * n[0], -1.15 + 0.25 * n[0]]
    )
    young = np.clip(10.0**log_young, 1e-5, 0.75)
    share = np.choose(kind, [np.minimum(0.08 * abs(n[1]), 0.3), 0.1 + 0.3 * u[0], 0.3 * u[0]])
    middle = share * (1 - young)
    old_age = np.choose(
        kind, [np.clip(9.5 + 2.8 * n[2], 3.5, 13.8), 3.5 + 8.5 * u[1], 4 + 9 * u[1]]
    )
    middle_age, young_age = 0.5 * 6.0 ** u[2], 0.004 * 60.0 ** u[3]
    gas_like = 1.1 * (mass["oh"] - 8.69) - 0.1
    metal = np.where(kind == STAR_FORMING, gas_like, 0.05 + 0.2 * (mass["logmass"] - 10.5))
    metal = np.clip(metal + 0.15 * n[3], -1.3, 0.38)
    parts = ((1 - young - middle, old_age), (middle, middle_age), (young, young_age))
    base = sum((f[:, None] * nodes.weights(age, metal) for f, age in parts), np.zeros(1))
    light = np.asarray(base @ nodes.mass_to_light)
    enhanced, spread = np.choose(kind, [0.22, 0.06, 0.14]), np.choose(kind, [0.13, 0.07, 0.11])
    distant = mass["logmass"] - 10.3 - 2 * np.log10(mass["z"] / 0.08) + 0.12 * n[5]
    return {
        "weights": base, "light_young": young, "light_intermediate": middle, "age_old": old_age,
        "age": 10 ** sum((f * np.log10(age) for f, age in parts), np.zeros(1)),
        "metallicity": metal,
        "alpha_fe": enhanced + spread * n[4],
        "iron_h": 0.08 * rng.standard_normal(BLOCK),
        # A galaxy of 2e10 solar masses, M/L 2, at z = 0.08 has 28 units in the fibre.
        "level": np.clip(28.0 * 10**distant * 2.0 / light, 3.0, 300.0),
    }  # fmt: skip
