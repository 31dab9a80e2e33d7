"""A small survey with every group, of known numbers, written without workers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline.card import Card
from storage import schema
from storage.grid import Grid
from storage.schema import FLUX_UNIT, LEDGER, Field, ObjectType, Reason, Split, Status
from storage.store import Survey
from storage.writer import WORKER_DIMS, Writer, writing
from training.frames import named
from training.statistics import Sample
from training.verdict import Verdict, judge

CONFIG, PRODUCT = "sdss", "ppca-1a2b3c4d"
GRID = Grid(kind="log", start=3.56, step=2e-4, size=1900)
FRAME = named("fs")
INDICES = {"Dn4000": "1", "HdeltaF": "Angstrom", "Mgb": "Angstrom"}
TEXT = np.dtypes.StringDType()
CEILING = 25.0
_PIXELS = ("spectrum", "wavelength")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was put into a store."""

    card: Card
    columns: xr.Dataset
    "The spectra group."
    truth: np.ndarray
    "(N, index) true indices."
    raw: np.ndarray
    "(N, index) noisy ones."
    output: np.ndarray
    "(N, index) denoised ones."
    done: np.ndarray
    "(N,) rows that the product has."
    flux: np.ndarray
    "(N, P) of the product."


def build(
    folder: Path,
    n: int = 80,
    *,
    truth: bool = True,
    products: tuple[str, ...] = (PRODUCT,),
    verdict: str = "passed",
    examples: int = 1,
) -> Known:
    """A store and its card: n galaxies, of which the last three are bad, sky, and a star."""
    rng = np.random.default_rng(1)
    path = str(folder / "survey.icechunk")
    spectra, noiseless = _spectra(n, rng)
    spectra_ok = spectra["status"].to_numpy() == Status.DONE
    science = spectra_ok & (spectra["object_type"].to_numpy() == ObjectType.SCIENCE)
    done = science & (spectra["class"].to_numpy() == "GALAXY")
    snr = spectra["snr_g"].to_numpy()
    true = np.column_stack([rng.normal(m, s, n) for m, s in ((1.5, 0.2), (1.0, 2.0), (3.0, 1.0))])
    sigma = np.array([0.4, 8.0, 7.0]) / snr[:, None]
    raw = true + sigma * rng.normal(size=true.shape)
    output = true + 0.3 * sigma * rng.normal(size=true.shape)
    Survey.create(path)
    mapper = FRAME.on(GRID)
    flux_N = spectra["flux"].to_numpy()
    ivar, z, ebv = (spectra[name].to_numpy() for name in ("ivar", "z", "ebv"))
    noisy, best = mapper.to(flux_N, ivar, z, ebv), mapper.to(noiseless, ivar, z, ebv)
    wiggle = 1 + 0.01 * np.sin(np.arange(FRAME.grid.size) / 40)
    flux = (best.x * best.scale[:, None]).numpy() * wiggle.astype("f4")
    with writing(path, "test") as writer:
        about = {"grid": GRID.model_dump(), "survey_root": "files", "reader": "sdss"}
        put(writer, f"spectra/{CONFIG}", spectra, {**about, "complete": True})
        if truth:
            put(writer, f"truth/{CONFIG}", _truth(noiseless, rng, spectra_ok), {"mock": "mock-v1"})
        for name in products:
            made = _product(flux, noisy.scale.numpy(), done, snr)
            put(writer, f"denoised/{CONFIG}/{name}", made, _about(name, verdict))
        label = FRAME.label
        inputs = {"raw": raw, f"raw@{label}": raw, f"model@{label}": true}
        inputs |= {f"truth@{label}": true} if truth else {}
        for name, values in inputs.items():
            put(writer, f"indices/{CONFIG}/{name}", _indices(values, sigma, science), _named(name))
        for name in products:
            made = _indices(output, 0.3 * sigma, done)
            put(writer, f"indices/{CONFIG}/{name}", made, _named(name))
    card = Card.model_validate(
        {
            "run": {"dir": str(folder)},
            "survey": {"root": "files", "reader": "sdss", "config": CONFIG, "store": path},
            "train": {"model": [{"name": "ppca"}]},
            "report": {"examples": examples},
        }
    )
    return Known(
        card=card, columns=spectra, truth=true, raw=raw, output=output, done=done, flux=flux
    )


def put(writer: Writer, group: str, ds: xr.Dataset, attrs: dict[str, Any]) -> None:
    """Make a group and write all of it."""
    writer.create_group(group, ds, attrs)
    writer.commit(f"{group}: room")
    fork = writer.fork()
    mine = {str(n): v for n, v in ds.data_vars.items()}
    pixels = {n: v.to_numpy() for n, v in mine.items() if WORKER_DIMS & set(v.dims)}
    fork.write_block(group, 0, pixels)
    writer.absorb([fork])
    writer.write_columns(group, 0, {n: v.to_numpy() for n, v in mine.items() if n not in pixels})
    writer.commit(f"{group}: rows")


def galaxies(z: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Spectra (N, L) with a break, Mgb, Hdelta, and H-alpha, in units of the flux."""
    rest = GRID.wavelength[None] / (1 + z[:, None])
    age = old[:, None]
    flux = 1 + 0.5 * (1 - age) * (rest / 5500 - 1) ** 2 - 0.3 * (1 - 2 * age) * (rest / 5500 - 1)
    flux *= 1 - 0.45 * age / (1 + np.exp((rest - 4000) / 25))
    for centre, width, depth in (
        (3934.8, 8, 0.35),
        (3969.6, 8, 0.3),
        (4102.9, 6, 0.25),
        (4305.6, 9, 0.2),
    ):
        flux *= 1 - depth * age * np.exp(-0.5 * ((rest - centre) / width) ** 2)
    flux *= 1 - 0.2 * age * np.exp(-0.5 * ((rest - 5176.4) / 12) ** 2)
    for centre, height in ((6564.6, 1.6), (4862.7, 0.5), (5008.2, 0.7), (3728.5, 1.0)):
        flux += height * (1 - age) * np.exp(-0.5 * ((rest - centre) / 3.5) ** 2)
    return flux


def _spectra(n: int, rng: np.random.Generator) -> tuple[xr.Dataset, np.ndarray]:
    ds = schema.blank(n, GRID)
    z, snr = rng.uniform(0.02, 0.15, n), np.exp(rng.uniform(np.log(2), np.log(40), n))
    bright = rng.uniform(5, 50, n)[:, None]
    noiseless = (bright * galaxies(z, rng.uniform(0, 1, n))).astype("f4")
    noise = bright / snr[:, None]
    ivar = np.broadcast_to(noise**-2, noiseless.shape).astype("f4").copy()
    ivar[:, 300:304] = 0
    flux = (noiseless + noise * rng.normal(size=noiseless.shape)).astype("f4")
    flux[ivar == 0] = 0
    status, code = np.full(n, Status.DONE), np.full(n, Reason.NONE)
    status[-3], code[-3] = Status.QUARANTINED, Reason.UNREADABLE
    flux[-3], ivar[-3] = 0, 0
    observation = np.array(
        [f"{266 + i // 640:04d}-51602-{1 + i % 640:04d}" for i in range(n)], TEXT
    )
    reason = np.full(n, "", TEXT)
    reason[-3] = f"spec-{observation[-3]}.fits: <truncated> after 11520 bytes; fetch it again"
    kind, target = np.full(n, "GALAXY", TEXT), np.zeros(n, "u1")
    kind[-1], kind[-2], target[-2] = "STAR", "", ObjectType.SKY
    values = {
        "flux": flux,
        "ivar": ivar,
        "model": noiseless,
        "observation": observation,
        "target_id": observation,
        "object_id": np.arange(1, n + 1, dtype="u8"),
        "split": np.where(np.arange(n) % 4 == 0, Split.TRAIN, Split.TEST).astype("u1"),
        "ra": rng.uniform(150, 151, n),
        "dec": rng.uniform(1, 2, n),
        "z": z,
        "class": kind,
        "object_type": target,
        "ebv": rng.uniform(0, 0.1, n).astype("f4"),
        "snr": snr.astype("f4"),
        "snr_g": snr.astype("f4"),
        "snr_r": snr.astype("f4"),
        "status": status.astype("u1"),
        "reason_code": code.astype("u2"),
        "reason": reason,
    }
    for name, array in values.items():
        ds[name].values[:] = array
    return schema.check(ds), noiseless


def _truth(noiseless: np.ndarray, rng: np.random.Generator, done: np.ndarray) -> xr.Dataset:
    n = len(noiseless)
    fields = {
        "flux": schema.PIXELS["flux"],
        "age": Field(dtype="f4", units="Gyr", description="age"),
        **LEDGER,
    }
    ds = schema.template(n, GRID, fields).copy(deep=True)
    ds["flux"].values[:], ds["age"].values[:] = noiseless, rng.uniform(1, 12, n)
    ds["status"].values[:] = np.where(done, Status.DONE, Status.NOT_APPLICABLE)
    return ds


def _product(flux: np.ndarray, scale: np.ndarray, done: np.ndarray, snr: np.ndarray) -> xr.Dataset:
    n, pixels = flux.shape
    fields = {
        "flux": Field(dtype="f4", units=FLUX_UNIT, dims=_PIXELS, description="denoised"),
        "sigma": Field(dtype="f4", units=FLUX_UNIT, dims=_PIXELS, description="of one pixel"),
        "scale": Field(dtype="f4", units=FLUX_UNIT, description="flux of the window"),
        "flag": Field(dtype="u1", units="1", description="what to know"),
        "route": Field(dtype="u1", units="1", description="number of the route"),
        "reason": Field(dtype="str", units="1", description="why it is outside"),
        **LEDGER,
    }
    ds = schema.template(n, FRAME.grid, fields).copy(deep=True)
    ds["flag"].attrs |= {
        "flag_masks": [1, 2, 4],
        "flag_meanings": "extrapolated above_ceiling misfit",
    }
    ds["flux"].values[done], ds["scale"].values[done] = flux[done], scale[done]
    ds["sigma"].values[done] = 0.02 * flux[done]
    ds["flag"].values[done & (snr > CEILING)] = 2
    ds["status"].values[:] = np.where(done, Status.DONE, Status.NOT_APPLICABLE)
    codes = np.where(done, Reason.NONE, Reason.OUTSIDE_FOOTPRINT)
    codes[-3:-1] = Reason.UPSTREAM_QUARANTINED, Reason.NOT_SCIENCE
    ds["reason_code"].values[:] = codes
    ds["reason"].values[-1] = "class 'STAR' is not GALAXY"
    assert pixels == FRAME.grid.size
    return ds


def _about(name: str, verdict: str) -> dict[str, Any]:
    return {
        "alias": name.rpartition("-")[0],
        "checkpoint": name,
        "checkpoint_digest": name.rpartition("-")[2],
        "verdict": verdict,
        "frame": FRAME.label,
        "frame_json": FRAME.model_dump(mode="json"),
        "grid": FRAME.grid.model_dump(mode="json"),
        "card_digest": "00000000",
        "code_version": "0.1.0+test",
    }


def _named(name: str) -> dict[str, Any]:
    return {"input": name, "alias": name, "frame": FRAME.label, "units": dict(INDICES)}


def _indices(values: np.ndarray, error: np.ndarray, done: np.ndarray) -> xr.Dataset:
    axes = ("spectrum", "index")
    return xr.Dataset(
        {
            "value": (axes, np.where(done[:, None], values, 0.0)),
            "error": (axes, np.where(done[:, None], error, 0.0).astype("f4")),
            "error_kind": (axes, np.ones(values.shape, "u1")),
            "flag": (axes, np.zeros(values.shape, "u1")),
            "status": ("spectrum", np.where(done, Status.DONE, Status.NOT_APPLICABLE).astype("u1")),
            "reason_code": ("spectrum", np.where(done, 0, Reason.NOT_SCIENCE).astype("u2")),
        },
        coords={"index": ("index", np.array(list(INDICES), TEXT))},
    )


def verdict_of(shrink: float = 0.5, n: int = 400) -> Verdict:
    """The verdict on an output that leaves that share of the noise."""
    rng = np.random.default_rng(3)
    samples = {}
    for name, snr in (("2-3", 2.5), ("5-6", 5.5), ("10-12", 11.0)):
        true = np.column_stack([rng.normal(1.5, 0.2, n), *rng.normal(2, 2.0, (2, n))])
        noise = np.array([0.4, 8.0, 7.0]) / snr * rng.normal(size=true.shape)
        noisy = true + noise
        wiener, output = (
            true.mean(0)
            + (true + share * noise - true.mean(0))
            * true.var(0)
            / (true.var(0) + share**2 * noise.var(0))
            for share in (0.45, shrink)
        )
        samples[name] = Sample(
            names=tuple(INDICES),
            snr=snr,
            truth=true,
            noisy=noisy,
            output=output,
            references={"linear": wiener},
        )
    return judge(samples, n_train=10_000)


def put_verdict(card: Card, name: str, verdict: Verdict) -> None:
    """Leave a verdict where train leaves it."""
    folder = Path(card.checkpoints) / name
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{}")
    (folder / "verdict.json").write_text(verdict.model_dump_json())
    aliases = Path(card.checkpoints) / "aliases.json"
    known = {} if not aliases.exists() else json.loads(aliases.read_text())
    aliases.write_text(json.dumps({**known, name.rpartition("-")[0]: name}))
