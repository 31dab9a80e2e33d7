"""Stars of a magnitude-limited survey seen by a spectrograph of choice, with their truth.

A `Star` is a population and a night: what is out there, and how the telescope looks at it (Pal &
Dobos 2024). Spectra are interpolated in a grid of models: the user's, or a toy's. Rows are drawn in
blocks of 256, each from generators of its own.
"""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator

from storage import schema
from storage.grid import Float, Grid
from storage.mock import generator
from storage.simulation import noise, survey
from storage.simulation.instrument import G_BAND, Instrument, load, within
from storage.simulation.stellar_grid import PARAMETERS as AXES
from storage.simulation.stellar_grid import Single
from storage.simulation.stellar_night import COLUMNS, Night
from storage.simulation.stellar_population import BLOCK, DRAWS, PARAMETERS, Population

_COLUMNS = {**PARAMETERS, **COLUMNS, **{name: schema.COLUMNS[name] for name in ("ra", "dec")}}
_MODEL = "noiseless flux, stands in for the best fit of the survey's pipeline"


def build(**options: Any) -> "Star":
    """A survey of stars; options are the fields of `Star`, defaults those of star-v1."""
    return Star(**options)


class Star(Population, Night):
    """Stars of spectral types G to M; see `storage.mock.Mock` for the contract.

    Examples
    --------
    >>> grid = Grid(kind="log", start=3.55, step=1e-4, size=4700)
    >>> truth = Star().truth(2, grid, seed=1, stream="demo")
    >>> truth["flux"].attrs["physics"]
    'toy'
    """

    coverage: tuple[PositiveFloat, PositiveFloat] = (3800.0, 9200.0)
    "Observed wavelengths with data; A."
    instrument: str | Instrument = "sdss"
    "A preset by name, a TOML file by path, or the table itself; one arm at a time."
    cosmics: float = Field(default=0.002, ge=0.0, lt=0.5)
    "Share of pixels lost to cosmic rays, 1-4 in a row."
    gaps: float = Field(default=0.005, ge=0.0, lt=0.5)
    "Share of pixels lost to gaps, 5-35 in a row."

    @model_validator(mode="after")
    def _one_arm_sees(self) -> Self:
        low, high = self.coverage
        if low > high:
            raise ValueError(f"coverage = ({low}, {high}): the first is the lower end")
        found = load(self.instrument)
        if found.joined and len(found.arms) > 1:
            raise ValueError(
                f"instrument {found.name}: {len(found.arms)} arms are joined, and stars are seen "
                "through one; describe one arm, or set joined = false"
            )
        return self

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        """Noiseless flux, `PARAMETERS` of the stars and `COLUMNS` of their nights.

        Raises
        ------
        ValueError
            When no arm sees the grid, its pixels are too wide, or a model cannot be read.
        """
        nodes, optics = self.nodes(load(self.instrument).on(grid), grid)
        flux = np.empty((n, grid.size), np.float32)
        columns = {name: np.empty(n, field.dtype) for name, field in _COLUMNS.items()}
        for block, rows in _blocks(n):
            # Numbers are drawn for whole blocks, spectra made for the rows that are asked for.
            u = generator(seed, f"truth:{stream}", block).random((BLOCK, DRAWS + len(COLUMNS)))
            u = u[: rows.stop - rows.start]
            drawn, weights = self.draw(u[:, :DRAWS], nodes)
            drawn |= self.conditions(u[:, DRAWS:])
            drawn |= survey.positions(seed, stream, np.arange(rows.start, rows.stop))
            light = (drawn[name] for name in ("z", "ebv", "magnitude"))
            flux[rows] = optics.seen(nodes.blend(weights), *light)
            for name, values in columns.items():
                values[rows] = drawn[name]
        attrs = schema.attrs(schema.PIXELS["flux"]) | {"physics": self.physics}
        return xr.Dataset(
            {
                "flux": (schema.PIXELS["flux"].dims, flux, attrs),
                **{k: ("spectrum", v, self._attrs(k)) for k, v in columns.items()},
            },
            coords={"wavelength": schema.wavelength(grid)},
        )

    def observe(
        self,
        truth: xr.Dataset,
        grid: Grid,
        seed: int,
        stream: str,
        snr_g: tuple[float, float] | None = None,
    ) -> xr.Dataset:
        """One stack of exposures; row i of the truth is row i of the stream.

        S/N follows from magnitude and night. Where snr_g is given, noise is scaled to it and keeps
        its shape.

        Raises
        ------
        ValueError
            When the truth is not on the grid, there are more rows than plates, or snr_g is given
            and the grid has no pixel in g.
        """
        if not np.array_equal(truth["wavelength"].to_numpy(), grid.wavelength):
            raise ValueError("truth is not on the grid given; draw it there with truth()")
        n = truth.sizes["spectrum"]
        names = survey.identity(n, seed, stream)
        flux, ivar = np.empty((2, n, grid.size), np.float32)
        mask = np.empty((n, grid.size), np.uint32)
        z, z_err = np.empty((2, n))
        instrument = load(self.instrument).on(grid)
        for block, rows in _blocks(n):
            part = truth.isel(spectrum=rows)
            rng = generator(seed, f"observe:{stream}", block)
            u, scatter = rng.random(BLOCK), rng.standard_normal(BLOCK)
            wanted = None if snr_g is None else snr_g[0] + u * (snr_g[1] - snr_g[0])
            seen = self._expose(rng, part, grid, instrument, wanted)
            flux[rows], ivar[rows], mask[rows] = seen
            z_err[rows] = _z_err(seen[0], seen[1])
            z[rows] = part["z"].to_numpy() + z_err[rows] * scatter[: rows.stop - rows.start]
        pixels = {"flux": flux, "ivar": ivar, "mask": mask}
        entries = {"z": z, "z_err": z_err, **survey.measured_snr(flux, ivar, grid), **names}
        return self._assemble(truth, grid, instrument, {**pixels, **entries})

    def _expose(
        self,
        rng: np.random.Generator,
        truth: xr.Dataset,
        grid: Grid,
        instrument: Instrument,
        wanted: Float | None,
    ) -> tuple[Single, Single, NDArray[np.uint32]]:
        """Flux, ivar and mask (n, L) of a block, whose draws are those of a whole one."""
        n = truth.sizes["spectrum"]
        shape = (BLOCK, grid.size)
        rays = noise.runs(rng, shape, self.cosmics, (1, 4))[:n]
        gaps = noise.runs(rng, shape, self.gaps, (5, 35))[:n]
        # Row after row: the first n rows are the same numbers, however many follow.
        drawn = noise.draw("gaussian", rng, (n, grid.size))
        flux = truth["flux"].to_numpy()
        night = {name: truth[name].to_numpy().astype(np.float64) for name in COLUMNS}
        variance = self.variance(flux, grid, instrument, night)
        common = self._unseen(grid, instrument)
        if wanted is not None:
            variance *= _scale(flux, variance, common == 0, grid, wanted[:n])[:, None]
        lost = np.uint32(1 << instrument.bits[0])
        mask = np.where((common == 0) & (rays | gaps), lost, np.uint32(0)) | common
        ivar = np.where(mask == 0, 1 / variance, np.float32(0))
        seen = np.where(mask == 0, flux + drawn * np.sqrt(variance), np.float32(0))
        return seen, ivar, np.asarray(mask)

    def _unseen(self, grid: Grid, instrument: Instrument) -> NDArray[np.uint32]:
        """Mask bits (L,) of pixels that have data in no spectrum."""
        _, bright, nodata = (np.uint32(1 << bit) for bit in instrument.bits)
        covered = within(grid.wavelength, self.coverage) & instrument.covers(grid.wavelength)
        sky = instrument.sky_over(grid) >= instrument.masked_sky
        return np.where(covered, np.where(sky, bright, np.uint32(0)), nodata)

    def _attrs(self, name: str) -> dict[str, Any]:
        found = schema.attrs(_COLUMNS[name])
        if name == "interp_axis":
            found |= {"flag_values": list(range(len(AXES))), "flag_meanings": " ".join(AXES)}
        return found | ({"physics": self.physics} if name in AXES else {})

    def _assemble(
        self, truth: xr.Dataset, grid: Grid, instrument: Instrument, found: dict[str, Any]
    ) -> xr.Dataset:
        n = truth.sizes["spectrum"]
        covered = self._unseen(grid, instrument) != np.uint32(1 << instrument.bits[2])
        ra, dec = truth["ra"].to_numpy(), truth["dec"].to_numpy()
        values = {
            "model": np.where(covered, truth["flux"].to_numpy(), np.float32(0)),
            # One array stands for all rows: the instrument is the same for every fibre.
            "lsf": np.broadcast_to(instrument.lsf_pixels(grid).astype("f2"), (n, grid.size)),
            "ra": ra,
            "dec": dec,
            "target_id": [f"{a:.5f}{d:+.5f}" for a, d in zip(ra, dec, strict=True)],
            "survey": ["mock"] * n,
            "class": ["STAR"] * n,
            "subclass": np.where(truth["teff"].to_numpy() < 3900.0, "M", "GK").tolist(),
            "object_type": int(schema.ObjectType.SCIENCE),
            "ebv": truth["ebv"].to_numpy(),
            "ebv_known": 1,
            "zwarn": 0,
            "vdisp": 0.0,
            "status": int(schema.Status.DONE),
            **found,
        }
        ds = survey.assemble(n, grid, values)
        ds["model"].attrs |= {"comment": _MODEL, "physics": self.physics}
        return ds


def _blocks(n: int) -> Iterator[tuple[int, slice]]:
    for first in range(0, n, BLOCK):
        yield first // BLOCK, slice(first, min(first + BLOCK, n))


def _scale(
    flux: Single, variance: Single, good: NDArray[np.bool_], grid: Grid, wanted: Float
) -> Single:
    """What variances are multiplied by to have a mean S/N in g, (N,)."""
    band = np.flatnonzero(good & within(grid.wavelength, G_BAND))
    if not band.size:
        raise ValueError(
            f"snr_g: grid {grid.edges[0]:.0f}-{grid.edges[-1]:.0f} A has no good pixel in "
            f"{G_BAND[0]:.0f}-{G_BAND[1]:.0f} A; leave snr_g out, and S/N follows from magnitude"
        )
    now = (flux[:, band] / np.sqrt(variance[:, band])).mean(axis=1, dtype=np.float64)
    return np.asarray((now / wanted) ** 2, dtype=np.float32)


def _z_err(flux: Single, ivar: Single) -> Float:
    """Error of a redshift, (N,): 6 km/s at S/N 10."""
    good = np.maximum((ivar > 0).sum(axis=1), 1)
    snr = (flux * np.sqrt(ivar)).sum(axis=1, dtype=np.float64) / good
    return np.asarray(np.clip(2e-5 * 10.0 / np.maximum(snr, 0.5), 3e-6, 4e-4))
