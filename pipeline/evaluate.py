"""Evaluate: how far the indices of every product are from the reference, on the survey itself.

The reference is the truth where the survey is a mock, else the survey's best fit. Only rows that
the model was not trained on count, on the frame of the product, where all three are done.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.accessor import products
from pipeline.card import Card
from pipeline.columns import doubtful
from pipeline.query import open_survey
from pipeline.route import plan
from pipeline.score import Three, score
from pipeline.stage import config_of
from storage.provenance import provenance
from storage.schema import Split, Status
from storage.store import Survey, exists
from storage.whole import replace

FILE = "evaluate.json"
WORDS = {
    "truth": "the noiseless truth of the mock survey",
    "model": "the survey's own best fit, which was made from the same noisy spectra",
}


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
        "products": [_product(card, ds, name) for name in products_of(card, ds)],
    }
    # allow_nan: a NaN is a mistake of ours, and no JSON.
    text = json.dumps(found, indent=1, allow_nan=False)
    replace(Path(card.run.dir) / FILE, f"{text}\n")
    return found


def is_done(card: Card) -> bool:
    """Whether the evaluation is of this card and of the store as it is."""
    file = Path(card.run.dir) / FILE
    if not file.is_file() or not exists(card.store):
        return False
    found = json.loads(file.read_text())
    return (found["snapshot"], found["card"]) == (Survey.open(card.store).snapshot, card.digest)


def products_of(card: Card, ds: xr.Dataset) -> list[str]:
    """Full names of the card's products in a survey's Dataset; older ones stay out.

    Where the card's models are not to be had any more, all products that are there.
    """
    survey = Survey.open(ds.attrs["store"], snapshot=ds.attrs["snapshot"])
    there = products(survey, ds.attrs["config"])
    try:
        wanted = [Path(chosen.path).name for chosen in plan(card).checkpoints]
    except (ValueError, FileNotFoundError):
        return there
    return [name for name in wanted if name in there]


def reference_of(ds: xr.Dataset, frame: str) -> str | None:
    """truth@<frame>, else model@<frame>; None where neither is measured."""
    kinds = [kind for kind in WORDS if indices_of(ds, f"{kind}@{frame}")]
    return f"{kinds[0]}@{frame}" if kinds else None


def indices_of(ds: xr.Dataset, name: str) -> list[str]:
    """The indices that were measured on an input."""
    parts = [str(n).rpartition(".")[2] for n in ds.data_vars if str(n).startswith(f"{name}.")]
    return [i for i in parts if ds[f"{name}.{i}"].attrs.get("index_name") == i]


def comparable(ds: xr.Dataset, name: str, frame: str) -> list[str]:
    """The indices that were measured on a product and on both its partners."""
    partners = [
        indices_of(ds, partner or "") for partner in (f"raw@{frame}", reference_of(ds, frame))
    ]
    return [i for i in indices_of(ds, name) if all(i in there for there in partners)]


def fair_rows(card: Card, ds: xr.Dataset, product: xr.Dataset) -> NDArray[np.bool_]:
    """Rows that are done in a product; of a survey that taught its model, the test side only."""
    done = product["status"].to_numpy() == Status.DONE
    if trained_here(card):
        done &= ds["split"].to_numpy() == Split.TEST
    return np.asarray(done)


def trained_here(card: Card) -> bool:
    """Whether the models of a card may have seen its survey: they were made by the same run."""
    return (
        card.train is not None
        or Path(card.checkpoints).resolve().parent == Path(card.run.dir).resolve()
    )


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


def _product(card: Card, ds: xr.Dataset, name: str) -> dict[str, Any]:
    product = ds.spectra.denoised(name)
    frame, rows = str(product.attrs["frame"]), fair_rows(card, ds, product)
    reference, flag = reference_of(ds, frame), product["flag"].to_numpy()
    trusted = ~doubtful(product).to_numpy()
    return {
        "product": name,
        "alias": product.attrs["alias"],
        "verdict": product.attrs["verdict"],
        "frame": frame,
        "reference": reference,
        "reference_words": WORDS[reference.split("@")[0]] if reference else None,
        "done": int((product["status"].to_numpy() == Status.DONE).sum()),
        "fair": int(rows.sum()),
        "trained_here": trained_here(card),
        "extrapolated": int((rows & (flag & 1 > 0)).sum()),
        "above_ceiling": int((rows & (flag & 2 > 0)).sum()),
        "misfit": int((rows & (flag & 4 > 0)).sum()),
        "indices": {
            index: _index(ds, name, frame, reference, index, rows, trusted)
            for index in comparable(ds, name, frame)
            if reference is not None
        },
    }


def _index(
    ds: xr.Dataset,
    name: str,
    frame: str,
    reference: str,
    index: str,
    rows: NDArray[np.bool_],
    trusted: NDArray[np.bool_],
) -> dict[str, Any]:
    """The score of an index, and in `trusted` that of the rows that bear no doubt."""
    unit = str(ds[f"{name}.{index}"].attrs["units"])
    whole, part = (
        asdict(score(three(ds, name, frame, reference, index, some), unit))
        for some in (rows, rows & trusted)
    )
    kept = ("n", "noise", "delta_o", "ratio", "ratio_error", "coverage")
    return {**whole, "trusted": {key: part[key] for key in kept}}
