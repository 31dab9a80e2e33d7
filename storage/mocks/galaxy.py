"""Galaxies of a flux-limited survey seen by a spectrograph of choice, with their truth.

A `Galaxy` is a population and an exposure: what is out there, and how the survey looks at it.
Rows are made in blocks of 256, each from generators of its own, and then cut.
"""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import xarray as xr
from pydantic import model_validator

from storage import schema
from storage.grid import Float, Grid
from storage.mock import generator
from storage.simulation import nebula, survey, synthesis
from storage.simulation.exposure import Exposure, Pixels
from storage.simulation.instrument import Instrument, load
from storage.simulation.population import ACTIVE, BLOCK, KINDS, PARAMETERS, STAR_FORMING, Population

_KINDS = dict(enumerate(KINDS.split()))
_GUIDE = ("flux_g_blue", "flux_g_red")
_MEASURED = ("z", "z_err", "vdisp", "snr", "snr_g", "snr_r")
# Noiseless, and so the best that the survey's own pipeline could have fitted.
_MODEL = "noiseless flux, stands in for the best fit of the survey's pipeline"


def build(**options: Any) -> "Galaxy":
    """A galaxy survey; options are the fields of `Galaxy`, defaults those of mock-v1."""
    return Galaxy(**options)


class Galaxy(Population, Exposure):
    """Galaxies between two redshifts; see `storage.mock.Mock` for the contract.

    Examples
    --------
    >>> grid = Grid(kind="log", start=3.55, step=1e-4, size=4700)
    >>> Galaxy().truth(2, grid, seed=1, stream="demo")["flux"].sizes["spectrum"]
    2
    """

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name in ("z", "sigma_v", "coverage", "snr_clip"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = ({low}, {high}): the first is the lower end")
        if self.z[1] > synthesis.Z_MOST:
            raise ValueError(f"z = {self.z}: the mock reaches z = {synthesis.Z_MOST}; stay below")
        if sum(self.shares) <= 0:
            raise ValueError(f"shares = {self.shares}: at least one kind needs a share above 0")
        load(self.instrument)  # says now that there is no such instrument
        return self

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        """Noiseless flux, parameters, and line fluxes before Galactic dust (``flux_halpha`` ...).

        Raises
        ------
        ValueError
            When the grid leaves the range of the templates.
        """
        flux = np.empty((n, grid.size), np.float32)
        seen_by, fields = self.spectrograph.on(grid), _columns(self.spectrograph)
        columns = {name: np.empty(n, field.dtype) for name, field in fields.items()}
        for block, rows in _blocks(n):
            draw = self.draw(generator(seed, f"truth:{stream}", block))
            light, lines, guide = synthesis.flux(draw, grid, seen_by, self.base)
            draw.update(survey.positions(seed, stream, block * BLOCK + np.arange(BLOCK)))
            draw.update({f"flux_{name}": lines[:, k] for k, name in enumerate(nebula.LINES)})
            draw.update(dict(zip(_GUIDE, guide.T, strict=True)))
            flux[rows] = light[: rows.stop - rows.start]
            for name, values in columns.items():
                values[rows] = draw[name][: rows.stop - rows.start]
        return xr.Dataset(
            {
                "flux": (schema.PIXELS["flux"].dims, flux, schema.attrs(schema.PIXELS["flux"])),
                **{k: ("spectrum", v, _attrs(k, fields[k])) for k, v in columns.items()},
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
        """One exposure; row i of the truth is row i of the stream.

        Raises
        ------
        ValueError
            When the truth is not on the grid, or there are more rows than plates.
        """
        if not np.array_equal(truth["wavelength"].to_numpy(), grid.wavelength):
            raise ValueError("truth is not on the grid given; draw it there with truth()")
        n = truth.sizes["spectrum"]
        shape, names = (n, grid.size), survey.identity(n, seed, stream)
        pixels = Pixels(
            np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.uint32)
        )
        entries = {name: np.empty(n) for name in _MEASURED}
        for block, rows in _blocks(n):
            part = truth.isel(spectrum=rows)
            seen, columns = self._observe(part, grid, (seed, stream, block), snr_g)
            for whole, some in zip(pixels, seen, strict=True):
                whole[rows] = some
            for name, values in entries.items():
                values[rows] = columns[name]
        return _assemble(truth, grid, pixels, {**entries, **names}, self)

    def _observe(
        self,
        truth: xr.Dataset,
        grid: Grid,
        key: tuple[int, str, int],
        snr_g: tuple[float, float] | None,
    ) -> tuple[Pixels, dict[str, Float]]:
        seed, stream, block = key
        rng = generator(seed, f"observe:{stream}", block)
        n = truth.sizes["spectrum"]
        # A short block is filled up: what a row draws must not depend on those that follow it.
        flux = np.resize(truth["flux"].to_numpy(), (BLOCK, grid.size))
        z, sigma_v = (np.resize(truth[name].to_numpy(), BLOCK) for name in ("z", "sigma_v"))
        guide = self._guide(truth)
        snr = self.wanted_snr(rng, self.level(flux, grid, guide), snr_g)
        entries = self.catalogue(rng, z, sigma_v, snr, self.z[1])
        if len(self.spectrograph.arms) > 1:
            # Arms in files of their own share the object, the sky above it, and no noise.
            name = f"pixels:{stream}:{grid.kind}:{grid.start}:{grid.step}:{grid.size}"
            rng = generator(seed, name, block)
        whole = self.expose(rng, flux, grid, self.electrons(flux, grid, guide, snr))
        pixels = Pixels(whole.flux[:n], whole.ivar[:n], whole.mask[:n])
        return pixels, {
            "z": entries.z[:n],
            "z_err": entries.z_err[:n],
            "vdisp": entries.vdisp[:n],
            **survey.measured_snr(pixels.flux, pixels.ivar, grid),
        }

    def _guide(self, truth: xr.Dataset) -> Float:
        """Flux in the two halves of g, (256, 2); of no use for an instrument of one arm."""
        if len(self.spectrograph.arms) == 1:
            return np.empty((BLOCK, 2))
        missing = [name for name in _GUIDE if name not in truth]
        if missing:
            raise ValueError(
                f"truth lacks {missing[0]!r}, by which the arms of {self.spectrograph.name} are "
                "exposed alike; draw it with the truth() of the same mock"
            )
        both = [np.resize(truth[name].to_numpy(), BLOCK) for name in _GUIDE]
        return np.stack(both, axis=1).astype(np.float64)


def _blocks(n: int) -> Iterator[tuple[int, slice]]:
    for first in range(0, n, BLOCK):
        yield first // BLOCK, slice(first, min(first + BLOCK, n))


def _columns(instrument: Instrument) -> dict[str, schema.Field]:
    """Every column of the truth."""
    guide = {
        name: schema.Field(
            dtype="f4",
            units=schema.FLUX_UNIT,
            description=f"mean flux over {low:.0f}-{low + 700:.0f} A, observed",
        )
        for name, low in zip(_GUIDE, (4000, 4700), strict=True)
    }
    positions = {name: schema.COLUMNS[name] for name in ("ra", "dec")}
    lines = {
        f"flux_{name}": schema.Field(
            dtype="f4",
            units="1e-17 erg s-1 cm-2",
            description=f"flux of the narrow line at {rest:.2f} A, before Galactic dust",
        )
        for name, rest in nebula.LINES.items()
    }
    return {**PARAMETERS, **positions, **lines, **(guide if len(instrument.arms) > 1 else {})}


def _attrs(name: str, field: schema.Field) -> dict[str, Any]:
    found = schema.attrs(field)
    if name == "population":
        found |= {"flag_values": list(_KINDS), "flag_meanings": KINDS}
    return found


def _assemble(
    truth: xr.Dataset, grid: Grid, pixels: Pixels, columns: dict[str, Any], mock: Galaxy
) -> xr.Dataset:
    n = truth.sizes["spectrum"]
    covered = mock.covered(grid)
    kind = truth["population"].to_numpy()
    ra, dec = truth["ra"].to_numpy(), truth["dec"].to_numpy()
    values = {
        **pixels._asdict(),
        "model": np.where(covered, truth["flux"].to_numpy(), np.float32(0)),
        # One array stands for all rows: the instrument is the same for every fibre.
        "lsf": np.broadcast_to(
            mock.spectrograph.on(grid).lsf_pixels(grid).astype("f2"), (n, grid.size)
        ),
        "ra": ra,
        "dec": dec,
        "target_id": [f"{a:.5f}{d:+.5f}" for a, d in zip(ra, dec, strict=True)],
        "survey": ["mock"] * n,
        "class": ["GALAXY"] * n,
        "subclass": np.select([kind == STAR_FORMING, kind == ACTIVE], ["STARFORMING", "AGN"], ""),
        "object_type": int(schema.ObjectType.SCIENCE),
        "ebv": truth["ebv"].to_numpy(),
        "ebv_known": 1,
        "zwarn": 0,
        "status": int(schema.Status.DONE),
        **columns,
    }
    ds = survey.assemble(n, grid, values)
    ds["model"].attrs["comment"] = _MODEL
    return ds
