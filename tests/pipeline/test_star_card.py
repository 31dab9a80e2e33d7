"""Stars that a card asks for: what makes them stale, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from pydantic import ValidationError

from pipeline import product as products
from pipeline import stage, star_stage
from pipeline.card import Card
from pipeline.card_measure import Measure
from pipeline.passes import is_done, look, steps_of
from pipeline.star_stage import MeasureStars
from storage.schema import Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.star_scene import write_table
from tests.pipeline.star_survey import SPECTRA, TEMPLATES, card, do, filter_on, ingested
from tests.pipeline.stores import CONFIG
from training.frames import named

pytestmark = pytest.mark.cluster

RAW = f"stars/{CONFIG}/raw"
ROUTE = {"model": "smooth"}
INPUTS = {"inputs": ["raw", "denoised"], "indices": ["CaT"], "stars": ["raw", "denoised"]}
TABLE = {**TEMPLATES, "alpha_m": (0.0, 0.0), "nodes": (3, 4, 4, 1), "physics": "table"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Card:
    """Stars and an index, of observed and of denoised spectra."""
    folder = tmp_path_factory.mktemp("stars")
    ingested(folder)
    filter_on(folder, "smooth")
    found = card(folder, ROUTE, **INPUTS)
    do("map", found, client)
    return found


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A survey of which nothing is measured yet."""
    ingested(tmp_path, 12)
    return tmp_path


def asking(known: Card, templates: Any = None, **tables: Any) -> Card:
    """The same card, but for some keys of [measure]."""
    table = known.measure.model_dump(mode="json") | tables.pop("measure", {})
    table["star_templates"] |= templates or {}
    return Card.model_validate({**known.model_dump(mode="json"), **tables, "measure": table})


def why(asked: Card) -> dict[str, tuple[str, ...]]:
    """What is stale, by the beginning of its name."""
    return {found.group.partition("-")[0]: found.why for found in look(asked)}


def test_other_templates_make_stars_stale_and_nothing_else(measured: Card) -> None:
    assert is_done(measured)
    both = {RAW, f"stars/{CONFIG}/smooth"}
    for templates, words in (
        ({"teff": [4250, 5000]}, "teff: 4000.0, 5000.0 -> 4250.0, 5000.0"),
        ({"degree": 2}, "degree: 3 -> 2"),
        ({"line_spread": 70.0}, "line_spread: 61.4 km/s, curve "),
    ):
        found = why(asking(measured, templates))
        assert found.keys() == both
        assert all(one[0].startswith(words) for one in found.values())


@pytest.mark.parametrize(
    "table",
    [
        {"draws": 40},
        {"missing": 0.05},
        {"indices": ["CaT", "Dn4000"]},
        {"lines": ["raw"]},
    ],
)
def test_other_keys_leave_stars_alone(table: dict[str, Any], measured: Card) -> None:
    stale = why(asking(measured, measure=table))
    assert stale
    assert not [name for name in stale if name.startswith("stars/")]


def test_another_version_of_the_fit_makes_them_stale(
    measured: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(star_stage, "VERSION", star_stage.VERSION + 1)
    assert why(measured) == dict.fromkeys((RAW, f"stars/{CONFIG}/smooth"), ("version: 1 -> 2",))


def test_a_route_that_is_moved_takes_stars_of_its_product_along(
    fresh: Path, client: Client
) -> None:
    filter_on(fresh, "smooth")
    do("map", card(fresh, ROUTE, stars=["raw", "denoised"]), client)
    routes = {**ROUTE, "where": "dec < 10"}, {"model": "none", "reason": "too far north"}
    moved = card(fresh, *routes, stars=["raw", "denoised"])
    found = {one.group.partition("-")[0]: one.rows for one in look(moved)}
    kinds = ("denoised", "stars")
    assert found.keys() == {f"{kind}/{CONFIG}/smooth" for kind in kinds}
    assert len(set(found.values())) == 1
    do("map", moved, client)
    survey = Survey.open(moved.store)
    (name,) = (g for g in survey.groups() if g.startswith(f"stars/{CONFIG}/smooth"))
    north = survey.read_column(SPECTRA, "dec") >= 10
    done = survey.read_column(name, "status") == Status.DONE
    assert north.any()
    assert done.any()
    assert not (done & north).any()


def test_models_count_by_what_is_in_their_files(measured: Card, tmp_path: Path) -> None:
    for name in ("here.fits", "moved.fits"):
        (tmp_path / name).write_bytes(b"as it was")

    def said(name: str) -> str:
        table = {"physics": "table", "models": str(tmp_path / name)}
        return next(words for words in why(asking(measured, table))[RAW] if "models" in words)

    first = said("here.fits")
    assert first.startswith("models:  -> ")
    assert said("moved.fits") == first
    (tmp_path / "here.fits").write_bytes(b"as it is now")
    assert said("here.fits") != first


def test_models_of_a_folder_count_by_their_names_too(fresh: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bosz"
    (folder / "cool").mkdir(parents=True)
    (folder / "cool" / "one.fits").write_bytes(b"a model")

    def digest() -> str:
        asked = card(fresh, templates={"physics": "bosz", "models": str(folder)})
        (step,) = stars_of(asked)
        return step.templates.digest

    first = digest()
    (folder / "cool" / "one.fits").rename(folder / "cool" / "two.fits")
    second = digest()
    (folder / "cool" / "two.fits").write_bytes(b"another model")
    assert len({first, second, digest()}) == 3


def stars_of(asked: Card) -> list[MeasureStars]:
    steps = steps_of(asked, Survey.open(asked.store), ["measure"])
    return [step for step in steps if isinstance(step, MeasureStars)]


def test_a_second_pass_has_nothing_to_do_and_a_broken_one_goes_on(
    fresh: Path, client: Client
) -> None:
    asked = card(fresh, inputs=["raw"], indices=["CaT"])
    do("measure", asked, client)
    assert do("measure", asked, client) == "nothing to do"
    before = Survey.open(asked.store).dataset(RAW).load()
    with writing(asked.store, "test") as writer:
        writer.reset(RAW, np.array([0, 3]))
        writer.commit("two rows pending")
    assert [(found.group, found.rows) for found in look(asked, ["measure"])] == [(RAW, 2)]
    do("measure", asked, client)
    after = Survey.open(asked.store).dataset(RAW).load()
    for name in before.data_vars:
        assert before[name].to_numpy().tobytes() == after[name].to_numpy().tobytes(), name


def test_a_table_of_the_user_s_is_fitted_in_place_of_the_toy(fresh: Path, client: Client) -> None:
    do("measure", card(fresh, inputs=["raw"], indices=["CaT"]), client)
    before = Survey.open(card(fresh).store)
    write_table(fresh / "mine.fits")
    asked = card(
        fresh,
        inputs=["raw"],
        indices=["CaT"],
        templates={**TABLE, "models": str(fresh / "mine.fits")},
    )
    said = do("measure", asked, client)
    assert f"indices/{CONFIG}/raw: nothing to do" in said
    assert f"{RAW}: 9 done, 3 not applicable; 12 now" in said
    after = Survey.open(asked.store)
    assert after.attrs(RAW)["templates"]["physics"] == "table"
    assert len(after.attrs(RAW)["templates_digest"]) == 16
    toy, mine = (survey.dataset(RAW).load() for survey in (before, after))
    apart = np.abs(toy["velocity"] - mine["velocity"]) / toy["velocity_err"]
    assert 0 < float(apart.max()) < 1
    index = f"indices/{CONFIG}/raw"
    one, other = (survey.attrs(index)["input_snapshot"] for survey in (before, after))
    assert one == other


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"medium": None}, r"measure.star_templates: .*MEDIUM is None; put 'air' or 'vacuum'"),
        ({"size": 2000}, r"measure.star_templates: .*mine.fits.*8150-.* A; the mock needs"),
        (b"no FITS", r"measure.star_templates: .*mine.fits: truncated, or not FITS"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_before_anything_is_written(
    damage: Any, words: str, fresh: Path, client: Client
) -> None:
    path = fresh / "mine.fits"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        write_table(path, **damage)
    asked = card(fresh, templates={**TABLE, "models": str(path)}, inputs=["raw"], indices=["CaT"])
    with pytest.raises(ValueError, match=words):
        do("measure", asked, client)
    assert Survey.open(asked.store).groups() == [SPECTRA]


def test_ranges_without_a_model_are_refused(fresh: Path, client: Client) -> None:
    asked = card(fresh, templates={**TEMPLATES, "logg": (2.1, 2.4)})
    with pytest.raises(ValueError, match=r"star_templates: logg = \(2.1, 2.4\): grid toy has no"):
        do("measure", asked, client)
    assert Survey.open(asked.store).groups() == [SPECTRA]


@pytest.mark.parametrize(("physics", "what"), [("table", "file"), ("bosz", "folder")])
def test_models_that_are_not_there_are_named(physics: str, what: str, fresh: Path) -> None:
    asked = card(fresh, templates={"physics": physics, "models": "no/where"})
    said = rf"measure.star_templates.models: no/where: no such {what}; expected the {what} of the"
    with pytest.raises(FileNotFoundError, match=said):
        look(asked, ["measure"])


def test_a_survey_that_does_not_know_its_line_spread_is_told_one(tmp_path: Path) -> None:
    ingested(tmp_path, 12, lsf=0)
    with pytest.raises(ValueError, match=r"lsf: no pixel has .* as measure.star_templates.line_sp"):
        look(card(tmp_path), ["measure"])
    (step,) = stars_of(card(tmp_path, templates={**TEMPLATES, "line_spread": 65}))
    assert step.templates.chosen.line_spread == 65.0
    assert step.templates.recipe["line_spread"] == 65.0


def test_denoised_stars_need_a_product_on_observed_wavelengths(fresh: Path) -> None:
    both = ["raw", "denoised"]
    with pytest.raises(ValueError, match=r"measure.stars: 'denoised' is asked for, and no model"):
        look(card(fresh, {"model": "none", "reason": "not yet"}, stars=both), ["measure"])
    filter_on(fresh, "resting", named("fs"))
    with pytest.raises(ValueError, match=r"on observed wavelengths, where a star has a velocity"):
        look(card(fresh, {"model": "resting"}, stars=both))
    filter_on(fresh, "smooth")
    with pytest.raises(ValueError, match=r"no denoised/sdss/smooth-.*; `specmill denoise` makes"):
        look(card(fresh, ROUTE, stars=both), ["measure"])
    routes = {"where": "class == 'GALAXY'", "model": "resting"}, ROUTE
    found = look(card(fresh, *routes, stars=both))
    groups = [one.group.partition("-")[0] for one in found]
    assert groups[-2:] == [RAW, f"stars/{CONFIG}/smooth"]


def test_stars_are_off_unless_asked_for(fresh: Path) -> None:
    assert Measure().stars == ()
    assert stars_of(card(fresh, stars=[])) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"stars": ["truth@frame"]}, r"stars.0\n.*'raw' or 'denoised'"),
        ({"star_templates": {"physics": "table"}}, r"physics = 'table' with models = ''"),
        ({"star_templates": {"tef": [1, 2]}}, r"Extra inputs"),
        ({"star_templates": {"line_spread": []}}, r"pairs \(A, km/s\), one at least"),
        ({"star_templates": {"line_spread": [[8000, 60], [7000, 50]]}}, r"ascending wavelengths"),
        ({"star_templates": {"line_spread": -3}}, r"greater than 0"),
    ],
)
def test_a_card_that_asks_for_what_is_not_there_is_refused(
    table: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Measure(**table)
