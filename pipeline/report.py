"""Report: what a run did, what it left out, how good the products are; one page, and one table."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline import evaluate, figures
from pipeline.card import Card, digest8
from pipeline.examples import examples, portrait
from pipeline.query import open_survey
from pipeline.score import FEWEST
from pipeline.stage import config_of
from storage.provenance import code_version, provenance
from storage.schema import REASONS, Reason, Status
from storage.store import Survey, exists
from storage.whole import replace
from training.registry import aliases
from training.verdict import QUOTED, Verdict, rows

TEMPLATE = "report.html.jinja"
MOST_LISTED = 200
"Observations that were left out and are listed one by one."
CAUSES = {
    "copies the noise": "its output follows the noise of its input, not the galaxy",
    "leaves the noise": "its output is no nearer to the star than its input",
    "paints the average star": "it is hardly better than one spectrum for all stars",
    "paints the average galaxy": "it is hardly better than one spectrum for all galaxies",
    "undertrained or unsuited": "a simple linear filter does clearly better",
    "miscalibrated": "its values are spread too widely or too narrowly around the mean",
    "over-shrunk": "its values are pulled to the mean more than their errors call for",
    "under-shrunk": "its values are pulled to the mean less than their errors call for",
}
"What the first words of a verdict's reason mean."


def report(card: Card) -> str:
    """Write the page; gives its path.

    Raises
    ------
    FileNotFoundError
        When there is no store.
    ValueError
        When the survey is not ingested.
    """
    ds = open_survey(card.store, config_of(card))
    page = _environment().get_template(TEMPLATE).render(**_content(card, ds))
    target = _target(card)
    replace(target, page)
    return str(target)


def is_done(card: Card) -> bool:
    """Whether the page is of this card, store, evaluation and verdicts as they are."""
    file = _target(card)
    if not file.is_file() or not exists(card.store):
        return False
    with file.open() as page:
        return _key(card) in page.read(2000)


def table(card: Card) -> Table:
    """The closing table of a run: every model and index on mocks, in units of the noise."""
    judged = verdicts(card)
    said = [
        f"{alias} {'passes' if verdict.passed else 'fails'}: {verdict.reason}"
        for alias, verdict in judged.items()
    ]
    mocks = ", ".join(sorted(judged_on(card))) or "unknown"
    said.insert(0, f"mock card {card.verdict.mock}, digest {mocks}")
    found = Table(
        title=f"On mock spectra of S/N {QUOTED} that no model has seen, in units of the noise",
        caption="\n".join(["Δ_O: to the truth; Δ_N: to the noisy input; last: two slopes", *said]),
        caption_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for head in ("model", "index"):
        found.add_column(head, no_wrap=True)
    for head in ("Δ_O", "Δ_N", "trivial", "linear", "truth on\noutput", "output on\ntruth"):
        found.add_column(head, justify="right")
    found.add_column("verdict", no_wrap=True)
    for alias, verdict in judged.items():
        for first, row in zip([True, *[False] * 99], rows(verdict, alias), strict=False):
            model, index, *numbers, _ = row.values()
            ends = (str(model), "passes" if verdict.passed else "fails") if first else ("", "")
            found.add_row(ends[0], str(index), *(_number(value) for value in numbers), ends[1])
    return found


def judged_on(card: Card) -> set[str]:
    """Digests of the mock cards that the models in the folder of the checkpoints were judged on."""
    folder = Path(card.checkpoints)
    files = [folder / name / "card.json" for name in aliases(folder).values()]
    said = [_json(file).get("training", {}).get("verdict_mock", "") for file in files]
    return {digest for digest in said if digest}


def verdicts(card: Card) -> dict[str, Verdict]:
    """The verdict of every model in the folder of the checkpoints, by alias."""
    folder = Path(card.checkpoints)
    files = {alias: folder / name / "verdict.json" for alias, name in aliases(folder).items()}
    return {
        alias: Verdict.model_validate_json(file.read_text())
        for alias, file in sorted(files.items())
        if file.is_file()
    }


def _target(card: Card) -> Path:
    return Path(card.run.dir) / "report" / "index.html"


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["number"] = _number
    found.filters["thousands"] = lambda value: f"{value:,}"
    return found


def _key(card: Card) -> str:
    """Everything that the page shows, but for the times."""
    file = Path(card.run.dir) / evaluate.FILE
    judged = {alias: verdict.model_dump_json() for alias, verdict in verdicts(card).items()}
    text = file.read_text() if file.is_file() else ""
    return digest8([card.digest, Survey.open(card.store).snapshot, code_version(), text, judged])


def _content(card: Card, ds: xr.Dataset) -> dict[str, Any]:
    scores, judged = _scores(card), verdicts(card)
    products = scores["products"] if scores else []
    made = {name: ds.spectra.denoised(name) for name in evaluate.products_of(card, ds)}
    groups = _groups({"spectra": ds, **made})
    counts = {name: Counter(found["status"].tolist()) for name, found in groups.items()}
    counted = {
        name: {Status(status): n for status, n in count.items()} for name, count in counts.items()
    }
    left = _left_out(ds, groups)
    return {
        "key": _key(card),
        "card": card,
        "settings": _settings(card),
        "config": ds.attrs["config"],
        "snapshot": ds.attrs["snapshot"],
        "spectra": ds.sizes["spectrum"],
        "statuses": list(Status),
        "counts": counted,
        "reasons": _reasons(groups),
        "left_out": left[:MOST_LISTED],
        "left_out_count": len(left),
        "times": _json(Path(card.run.dir) / "times.json"),
        "provenance": provenance(),
        "scores": scores,
        "products": products,
        "made": [{"name": name, **product.attrs} for name, product in made.items()],
        "verdicts": {alias: (verdict, _plain(verdict)) for alias, verdict in judged.items()},
        "verdict_rows": {alias: rows(verdict, alias) for alias, verdict in judged.items()},
        "quoted": QUOTED,
        "mocks": sorted(judged_on(card)),
        "figure_ledger": figures.ledger(counted),
        "figure_verdicts": figures.verdict_bars(judged),
        "figure_curves": figures.curves(products, judged),
        "figure_histograms": _histograms(card, ds, products, made),
        "portraits": _portraits(card, ds, made),
    }


def _scores(card: Card) -> dict[str, Any]:
    return _json(Path(card.run.dir) / evaluate.FILE)


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def _settings(card: Card) -> list[tuple[str, str]]:
    """What the card says beyond the defaults, a line a key."""
    said = card.model_dump(mode="json", exclude_defaults=True)
    return [
        (f"{table}.{key}", value if isinstance(value, str) else json.dumps(value))
        for table, keys in said.items()
        for key, value in keys.items()
    ]


def _groups(parts: Mapping[str, xr.Dataset]) -> dict[str, dict[str, np.ndarray]]:
    """The ledger of the spectra and of every product: status, reason code and words."""
    names = ("status", "reason_code", "reason")
    return {group: {name: part[name].to_numpy() for name in names} for group, part in parts.items()}


def _reasons(groups: Mapping[str, dict[str, np.ndarray]]) -> list[tuple[str, str, int]]:
    """(group, reason, rows), the most frequent first within a group."""
    return [
        (group, REASONS[Reason(code)], n)
        for group, found in groups.items()
        for code, n in Counter(found["reason_code"].tolist()).most_common()
        if code != Reason.NONE
    ]


def _left_out(
    ds: xr.Dataset, groups: Mapping[str, dict[str, np.ndarray]]
) -> list[tuple[str, str, str, str]]:
    """(observation, class, group, reason) of rows left out, each once, quarantined ones first."""
    names, classes = ds["observation"].to_numpy(), ds["class"].to_numpy()
    sources = ds["source"].to_numpy()
    listed: dict[int, tuple[str, str, str, str]] = {}
    for group, found in groups.items():
        for row in np.flatnonzero(found["status"] > Status.DONE).tolist():
            words = found["reason"][row] or REASONS[Reason(int(found["reason_code"][row]))]
            if row not in listed and found["reason_code"][row] != Reason.ROUTED_ELSEWHERE:
                name = names[row] or sources[row] or f"row {row}"
                listed[row] = (str(name), str(classes[row]), group, str(words))
    return list(listed.values())


def _plain(verdict: Verdict) -> str:
    cause = verdict.reason.partition(":")[0]
    if verdict.passed:
        return "no test fails where it decides"
    return CAUSES.get(cause, "a test fails")


def _histograms(
    card: Card, ds: xr.Dataset, scores: list[dict[str, Any]], made: Mapping[str, xr.Dataset]
) -> str:
    samples: dict[str, dict[str, Any]] = {}
    words = ""
    for found in (one for one in scores if one["product"] in made and one["reference"]):
        name, frame, reference = found["product"], found["frame"], found["reference"]
        used = evaluate.fair_rows(card, ds, made[name])
        label = name if found["alias"] in samples else found["alias"]
        samples[label] = {
            index: (score["unit"], evaluate.three(ds, name, frame, reference, index, used))
            for index, score in found["indices"].items()
            if score["n"] >= FEWEST and index in evaluate.comparable(ds, name, frame)
        }
        words = "truth" if reference.startswith("truth") else "survey's best fit"
    return figures.histograms(samples, words)


def _portraits(card: Card, ds: xr.Dataset, made: Mapping[str, xr.Dataset]) -> list[tuple[str, str]]:
    """(title, figure) of example spectra; of the first product that has any."""
    for name, product in made.items():
        used = evaluate.fair_rows(card, ds, product)
        found = examples(ds, name, used, card.report.examples)
        if found:
            return [(given.title, portrait(given)) for given in found]
    return []


def _number(value: float | str | None, digits: int = 2) -> str:
    """A number for people: a dash where there is none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    # Adding 0 takes the sign from a rounded zero.
    return value if isinstance(value, str) else f"{round(value, digits) + 0.0:.{digits}f}"
