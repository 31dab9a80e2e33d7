"""Evaluate: how far the indices of every product are from the reference, on the survey itself.

The reference is the truth where the survey is a mock, else the survey's best fit. Only rows that
the model was not trained on count, on the frame of the product, where all three are done.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pipeline.accessor import products
from pipeline.card import Card
from pipeline.query import open_survey
from pipeline.stage import config_of
from storage.provenance import provenance
from storage.schema import Split, Status
from storage.store import Survey, exists

Float = NDArray[np.float64]

FILE = "evaluate.json"
FEWEST = 5
"A number is given from as many spectra on."
WINDOW, SHARE, STEPS = 500, 4, 5
"Spectra of a window, or a quarter of all where that is less; windows move by a fifth of it."
FEWEST_CURVE = 40
"Spectra from which on there is a curve."
PARTS = 20
"Parts of the jackknife."
ROBUST = 1.4826
"Standard deviation of a Gaussian over its median absolute deviation."
WORDS = {
    "truth": "the noiseless truth of the mock survey",
    "model": "the survey's own best fit, which was made from the same noisy spectra",
}


@dataclass(frozen=True, kw_only=True)
class Three:
    """One index of n spectra, three ways, on one frame."""

    snr: Float
    "(n,) S/N per pixel in g."
    output: Float
    "(n,) of the denoised spectra."
    raw: Float
    "(n,) of the noisy ones."
    reference: Float
    "(n,) of the truth or the best fit."
    error: Float
    "(n,) given with output; NaN where there is none."


@dataclass(frozen=True, kw_only=True)
class Score:
    """One index of one product, in the unit of the index; None where it cannot be said."""

    unit: str
    "Of the index."
    n: int
    "Spectra."
    noise: float | None
    "Standard deviation of raw - reference: what is there without a model."
    delta_o: float | None
    "Standard deviation of output - reference."
    delta_n: float | None
    "Standard deviation of output - raw."
    trivial: float | None
    "Standard deviation of the reference: what one value for all galaxies would reach."
    ratio: float | None
    "delta_o / noise."
    ratio_error: float | None
    "Its jackknife error."
    bias: float | None
    "Mean of output - reference."
    bias_raw: float | None
    "Mean of raw - reference."
    noise_mad: float | None
    "As noise, blind to outliers: 1.4826 times the median absolute deviation."
    delta_o_mad: float | None
    "As delta_o, blind to outliers."
    delta_n_mad: float | None
    "As delta_n, blind to outliers."
    coverage: float | None
    "Share of spectra whose output is within its error of the reference; 0.68 is due."
    n_error: int
    "Spectra that have an error."
    curve: dict[str, list[float]]
    "In sliding windows of S/N: snr (median), noise, delta_o, delta_n, trivial."


def evaluate(card: Card) -> dict[str, Any]:
    """Judge every product of the card's store, and write <run.dir>/evaluate.json.

    Raises
    ------
    FileNotFoundError
        When there is no store.
    ValueError
        When the survey is not ingested.
    """
    config = config_of(card)
    ds = open_survey(card.store, config)
    found = {
        "snapshot": ds.attrs["snapshot"],
        "card": card.digest,
        "config": config,
        **provenance(),
        "products": [_product(card, ds, name) for name in products_of(ds)],
    }
    _write(Path(card.run.dir) / FILE, found)
    return found


def is_done(card: Card) -> bool:
    """Whether the evaluation is of this card and of the store as it is."""
    file = Path(card.run.dir) / FILE
    if not file.is_file() or not exists(card.store):
        return False
    found = json.loads(file.read_text())
    return (found["snapshot"], found["card"]) == (Survey.open(card.store).snapshot, card.digest)


def products_of(ds: xr.Dataset) -> list[str]:
    """Full names of the products of a survey's Dataset."""
    survey = Survey.open(ds.attrs["store"], snapshot=ds.attrs["snapshot"])
    return products(survey, ds.attrs["config"])


def reference_of(ds: xr.Dataset, frame: str) -> str | None:
    """truth@<frame>, else model@<frame>; None where neither is measured."""
    names = {str(name).rpartition(".")[0] for name in ds.data_vars}
    return next((f"{kind}@{frame}" for kind in WORDS if f"{kind}@{frame}" in names), None)


def indices_of(ds: xr.Dataset, name: str) -> list[str]:
    """The indices that were measured on an input."""
    own = [str(n).rpartition(".") for n in ds.data_vars]
    parts = [index for head, _, index in own if head == name and index not in ("status", "flag")]
    return [index for index in parts if f"{index}_error" in parts]


def fair_rows(card: Card, ds: xr.Dataset, product: xr.Dataset) -> NDArray[np.bool_]:
    """Rows that are done in a product and that its model was not trained on."""
    done = product["status"].to_numpy() == Status.DONE
    if trained_here(card, ds, product.attrs):
        done &= ds["split"].to_numpy() != Split.TRAIN
    return np.asarray(done)


def trained_here(card: Card, ds: xr.Dataset, product: Mapping[str, Any]) -> bool:
    """Whether the model of a product was trained on this store; True where nobody knows."""
    file = Path(card.checkpoints) / str(product["checkpoint"]) / "card.json"
    if not file.is_file():
        return True
    snapshot = json.loads(file.read_text()).get("training", {}).get("snapshot")
    known = {version.snapshot for version in Survey.open(ds.attrs["store"]).history()}
    return snapshot is None or snapshot in known


def three(
    ds: xr.Dataset, name: str, frame: str, reference: str, index: str, rows: NDArray[np.bool_]
) -> Three:
    """An index of a product and its partners, where all of them are numbers."""
    names = {
        "snr": "snr_g",
        "output": f"{name}.{index}",
        "raw": f"raw@{frame}.{index}",
        "reference": f"{reference}.{index}",
        "error": f"{name}.{index}_error",
    }
    loaded = ds[list(names.values())].compute()
    values = {key: loaded[column].to_numpy().astype(float) for key, column in names.items()}
    sound = [np.isfinite(values[key]) for key in names if key != "error"]
    kept = rows & np.logical_and.reduce(sound)
    return Three(**{key: column[kept] for key, column in values.items()})


def score(given: Three, unit: str) -> Score:
    """The figures of merit of one index of one product."""
    n = len(given.snr)
    noise, out = given.raw - given.reference, given.output - given.reference
    moved = given.output - given.raw
    has = np.isfinite(given.error) & (given.error > 0)
    within = np.abs(out[has]) < given.error[has]
    ratio, ratio_error = _ratio(out, noise)
    return Score(
        unit=unit,
        n=n,
        noise=_of(np.std, noise),
        delta_o=_of(np.std, out),
        delta_n=_of(np.std, moved),
        trivial=_of(np.std, given.reference),
        ratio=ratio,
        ratio_error=ratio_error,
        bias=_of(np.mean, out),
        bias_raw=_of(np.mean, noise),
        noise_mad=_of(_mad, noise),
        delta_o_mad=_of(_mad, out),
        delta_n_mad=_of(_mad, moved),
        coverage=_of(np.mean, within),
        n_error=int(has.sum()),
        curve=_curve(given),
    )


def _product(card: Card, ds: xr.Dataset, name: str) -> dict[str, Any]:
    product = ds.spectra.denoised(name)
    frame, rows = str(product.attrs["frame"]), fair_rows(card, ds, product)
    reference = reference_of(ds, frame)
    measured = indices_of(ds, name) if f"raw@{frame}" in {h for h in _heads(ds)} else []
    scores = {
        index: asdict(
            score(three(ds, name, frame, reference, index, rows), ds[f"{name}.{index}"].units)
        )
        for index in measured
        if reference is not None and index in indices_of(ds, reference)
    }
    flag = product["flag"].to_numpy()
    done = product["status"].to_numpy() == Status.DONE
    return {
        "product": name,
        "alias": product.attrs["alias"],
        "verdict": product.attrs["verdict"],
        "frame": frame,
        "reference": reference,
        "reference_words": WORDS[reference.split("@")[0]] if reference else None,
        "done": int(done.sum()),
        "fair": int(rows.sum()),
        "trained_here": trained_here(card, ds, product.attrs),
        "extrapolated": int((rows & (flag & 1 > 0)).sum()),
        "above_ceiling": int((rows & (flag & 2 > 0)).sum()),
        "indices": scores,
    }


def _heads(ds: xr.Dataset) -> set[str]:
    return {str(name).rpartition(".")[0] for name in ds.data_vars}


def _of(statistic: Any, values: NDArray[Any]) -> float | None:
    """A statistic, where there are enough values."""
    return float(statistic(values)) if len(values) >= FEWEST else None


def _mad(values: Float) -> float:
    return float(ROBUST * np.median(np.abs(values - np.median(values))))


def _ratio(out: Float, noise: Float) -> tuple[float | None, float | None]:
    """std(out) / std(noise) and its error, by leaving out each of 20 interleaved parts in turn."""
    if len(out) < FEWEST or not noise.std() > 0:
        return None, None
    parts = min(PARTS, len(out))
    label = np.arange(len(out)) % parts
    left = [out[label != part].std() / noise[label != part].std() for part in range(parts)]
    error = math.sqrt((parts - 1) * float(np.var(left)))
    return float(out.std() / noise.std()), error


def _curve(given: Three) -> dict[str, list[float]]:
    n = len(given.snr)
    if n < FEWEST_CURVE:
        return {}
    window = min(WINDOW, n // SHARE)
    order = np.argsort(given.snr, kind="stable")

    def sliding(values: Float) -> Float:
        return np.asarray(sliding_window_view(values[order], window)[:: max(1, window // STEPS)])

    return {
        "snr": np.median(sliding(given.snr), axis=1).tolist(),
        "noise": sliding(given.raw - given.reference).std(axis=1).tolist(),
        "delta_o": sliding(given.output - given.reference).std(axis=1).tolist(),
        "delta_n": sliding(given.output - given.raw).std(axis=1).tolist(),
        "trivial": sliding(given.reference).std(axis=1).tolist(),
    }


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    # allow_nan: a NaN is a mistake of ours, and no JSON.
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    partial.replace(file)
