"""Taken: a footprint that followed from mocks makes another checkpoint with its own products."""

import json
import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import passes, route
from pipeline.places import Found, Place
from pipeline.taken import footprint, take
from storage.store import Survey
from tests.pipeline.scene import FOOTPRINT, GOOD, card_of, ingested, save
from training import checkpoint, registry

Edges = tuple[float, ...]
BINS: dict[str, Edges] = {"z": (0.0, 0.04, 0.1, 0.2), "sigma_v": (50, 200, 400), "snr": (1, 5, 40)}
PRESENT = {"z": FOOTPRINT.z, "sigma_v": None, "snr": (3.0, 20.0)}


def found(path: Path = Path("x"), poor: tuple[str, ...] = (), **bins: Edges) -> Found:
    """All bins hold, but for those whose names are said."""
    places = [
        Place(
            axis=axis,
            low=low,
            high=high,
            name=f"{axis} {low:g}-{high:g}",
            worth={"Mgb": 3.0 if f"{axis} {low:g}-{high:g}" in poor else 1.0},
            noise={"Mgb": 0.5},
            error={"Mgb": 0.1},
        )
        for axis, edges in (BINS | bins).items()
        for low, high in pairwise(edges)
    ]
    return Found(path=path, present=PRESENT, at=(5, 6), places=tuple(places))


def test_a_footprint_grows_to_where_the_model_holds() -> None:
    made = footprint(found(), FOOTPRINT)
    assert made.z == (0.0, 0.2)
    assert made.snr_g == (1, FOOTPRINT.snr_g[1])
    assert made.snr_ceiling == FOOTPRINT.snr_ceiling
    assert made.classes == FOOTPRINT.classes


def test_a_footprint_shrinks_to_where_the_model_holds() -> None:
    made = footprint(found(poor=("z 0.1-0.2", "snr 5-40")), FOOTPRINT)
    assert made.z == (0.0, 0.1)
    # The lower end bounds; above the ceiling rows are flagged.
    assert made.snr_g == (1, FOOTPRINT.snr_g[1])
    assert made.snr_ceiling == 5
    low = footprint(found(poor=("snr 1-5",)), FOOTPRINT)
    assert (low.snr_g, low.snr_ceiling) == ((5, 30), FOOTPRINT.snr_ceiling)


def test_where_nothing_was_tried_a_footprint_ends_as_before() -> None:
    made = footprint(found(z=(0.05, 0.1), snr=(5, 6)), FOOTPRINT)
    assert (made.z, made.snr_g) == (FOOTPRINT.z, FOOTPRINT.snr_g)
    assert footprint(found(z=(), snr=()), FOOTPRINT) == FOOTPRINT
    # What was learnt on the other side of a bin that fails is gone.
    assert footprint(found(poor=("z 0-0.04",)), FOOTPRINT).z == (0.04, 0.2)


def test_dispersions_stay_unbounded_and_a_bound_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        footprint(found(), FOOTPRINT)
        assert caplog.text == ""
        assert footprint(found(poor=("sigma_v 200-400",)), FOOTPRINT).vdisp is None
    assert "x holds in 50-200 km/s only; a footprint does not look at" in caplog.text


def test_a_model_that_holds_nowhere_keeps_its_name(tmp_path: Path) -> None:
    path = save(tmp_path, "low")
    bad = found(path, poor=("z 0-0.04", "z 0.04-0.1", "z 0.1-0.2"))
    with pytest.raises(ValueError, match=r"holds nowhere around its footprint in z 0.02-0.13"):
        take(bad)
    assert registry.aliases(path.parent) == {"low": path.name}


def test_taken_it_is_a_checkpoint_of_its_own_under_the_same_names(tmp_path: Path) -> None:
    plain = checkpoint.load(save(tmp_path, "low"))
    about = plain.card.model_copy(update={"training": {"recipe": "r", "rows_digest": "d"}})
    path = checkpoint.save(plain.path.parent, "low", plain.model, about)
    checkpoint.write_verdict(path, GOOD.model_dump(mode="json"))
    registry.set_alias(path.parent, "low", path)
    (path / "outside.json").write_text("{}")
    registry.set_alias(path.parent, "another", path)
    made = take(found(path))
    assert made != path
    assert made.name.startswith("low-")
    assert registry.aliases(path.parent) == {"low": made.name, "another": made.name}
    old, new = checkpoint.load(path), checkpoint.load(made)
    assert old.footprint == FOOTPRINT
    assert new.footprint == footprint(found(), FOOTPRINT)
    assert new.verdict == old.verdict
    assert (made / "outside.json").is_file()
    # What its training rows had stays known, however often it is taken.
    again = checkpoint.load(take(replace(found(made), present=PRESENT)))
    for one in (new, again):
        assert one.card.training["footprint"]["z"] == list(FOOTPRINT.z)
        # By these `train` knows that it need not be taught again.
        assert one.card.training.items() >= old.card.training.items()
    assert again.path == made


def test_without_a_footprint_there_is_nothing_to_take(tmp_path: Path) -> None:
    path = save(tmp_path, "low")
    loaded = checkpoint.load(path)
    bare = loaded.card.model_copy(update={"footprint": None})
    none = checkpoint.save(path.parent, "none", loaded.model, bare)
    with pytest.raises(ValueError, match="the checkpoint has no footprint; train the model again"):
        take(found(none))


def test_products_are_made_anew_where_a_footprint_was_taken(tmp_path: Path) -> None:
    ingested(tmp_path, 40)
    path = save(tmp_path, "low")
    rules: list[dict[str, Any]] = [{"model": "low"}]
    card = card_of(tmp_path, *rules, denoise={"unproven": True})
    (before,) = passes.steps_of(card, Survey.open(card.store), ("denoise",))
    made = take(found(path))
    (chosen,) = route.plan(card).checkpoints
    assert chosen.name == made.name
    (after,) = passes.look(card, ("denoise",))
    assert after.group == f"denoised/sdss/{made.name}" != before.group
    assert after.why == ("not there yet",)
    assert json.loads((made / "card.json").read_text())["footprint"]["z"] == [0.0, 0.2]
