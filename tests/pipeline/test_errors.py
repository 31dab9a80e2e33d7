"""Errors of indices on denoised spectra, the values de-shrunk, and how far they moved."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline import calibrate, stage, stale, train
from pipeline.block import Block
from pipeline.card import Card
from pipeline.errors import LEAST_SLOPE, ErrorKind, errors_of
from pipeline.index import Flag
from pipeline.judges import measured
from pipeline.measure import Measure
from pipeline.passes import Pass, look, steps_of
from pipeline.simulate import mock
from storage.grid import Grid
from storage.schema import Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.error_table import FACTOR, INTERCEPT, SLOPE, by_hand
from tests.pipeline.scene import card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, FRAME
from training import calibrated, checkpoint
from training.calibrate import answers
from training.calibrate import calibrate as table_of
from training.calibrated import NUMBERS
from training.frames import named
from training.norm import NOISELESS
from training.recipe import ModelCard
from training.shown import BINS, Shown, draw

N = 300
NAMES = ("Dn4000", "HdeltaF", "Mgb")
ROUTES = (
    {"where": "z < 0.11", "model": "factors"},
    {"where": "class == 'GALAXY'", "model": "filter"},
)


def made(card: Card) -> dict[str, xr.Dataset]:
    """The groups of a card, as a worker makes them, by the first word of their names."""
    stage.reading.cache_clear()
    survey = Survey.open(card.store)
    steps = steps_of(card, survey, ["denoise", "measure"])
    work = Pass(store=card.store, snapshot=survey.snapshot, config=CONFIG, steps=tuple(steps))
    block = Block(first=0, last=N, groups=frozenset(step.group for step in steps))
    found = work(block, work.read(block))
    return {name.replace(f"/{CONFIG}/", "/").partition("-")[0]: ds for name, ds in found.items()}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    folder = tmp_path_factory.mktemp("errors")
    save(folder, "factors", factors(ingested(folder, N)))
    save(folder, "filter")
    return card_of(folder, *ROUTES)


@pytest.fixture(scope="module")
def before(card: Card) -> dict[str, xr.Dataset]:
    """As it is without tables."""
    assert not list(Path(card.checkpoints).glob("*/errors.json"))
    return made(card)


@pytest.fixture(scope="module")
def after(card: Card, before: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """As it is with one for each model."""
    for path in Path(card.checkpoints).glob("*-*"):
        calibrated.write(path, by_hand())
    return made(card)


def done_of(ds: xr.Dataset) -> np.ndarray:
    return np.asarray(ds["status"].to_numpy() == Status.DONE)


def spectra(card: Card, name: str) -> np.ndarray:
    return Survey.open(card.store).dataset(f"spectra/{CONFIG}")[name].to_numpy()


def test_without_a_table_draws_are_as_they_are(before: dict[str, xr.Dataset]) -> None:
    found = before["indices/factors"]
    done = done_of(found)
    assert (found["error_kind"].to_numpy()[done] == ErrorKind.DRAWS).all()
    assert np.isnan(found["deshrunk"]).all()
    found = before["indices/filter"]
    assert (found["error_kind"] == ErrorKind.NONE).all()
    assert np.isnan(found["error"]).all()


def test_draws_are_multiplied_by_what_mocks_say(
    before: dict[str, xr.Dataset], after: dict[str, xr.Dataset]
) -> None:
    plain, found = before["indices/factors"], after["indices/factors"]
    done = done_of(found)
    assert done.any()
    np.testing.assert_array_equal(found["value"], plain["value"])
    ratio = (found["error"] / plain["error"]).to_numpy()[done]
    np.testing.assert_allclose(ratio, [[FACTOR, FACTOR, 1]] * len(ratio), rtol=1e-6)
    kinds = [ErrorKind.CALIBRATED_DRAWS, ErrorKind.CALIBRATED_DRAWS, ErrorKind.DRAWS]
    assert (found["error_kind"].to_numpy()[done] == kinds).all()
    wide = (found["deshrunk_error"] / found["error"]).to_numpy()[done, :2]
    np.testing.assert_allclose(wide, 2, rtol=1e-5)


def test_a_model_without_draws_has_the_error_of_the_table(
    card: Card, after: dict[str, xr.Dataset]
) -> None:
    found = after["indices/filter"]
    snr, done = spectra(card, "snr_g"), done_of(found)
    expected = 0.1 * 2 / np.minimum(snr[done], 32)
    for index in range(2):
        np.testing.assert_allclose(found["error"].to_numpy()[done, index], expected, rtol=1e-5)
    kinds = [ErrorKind.CALIBRATED, ErrorKind.CALIBRATED, ErrorKind.NONE]
    assert (found["error_kind"].to_numpy()[done] == kinds).all()
    flag = found["flag"].to_numpy()[done] & Flag.NO_ERROR
    assert (flag == [0, 0, Flag.NO_ERROR]).all()


def test_shrinkage_is_taken_out_of_what_the_table_knows(after: dict[str, xr.Dataset]) -> None:
    for name in ("factors", "filter"):
        found = after[f"indices/{name}"]
        done = done_of(found)
        expected = (found["value"].to_numpy()[done, :2] - INTERCEPT) / SLOPE
        np.testing.assert_allclose(found["deshrunk"].to_numpy()[done, :2], expected, rtol=1e-6)
        assert np.isnan(found["deshrunk"][:, 2]).all()
        assert np.isnan(found["deshrunk"].to_numpy()[~done]).all()


def test_the_difference_is_that_from_the_noisy_spectrum_on_the_same_frame(
    card: Card, after: dict[str, xr.Dataset]
) -> None:
    raw = after["indices/raw@fs"]["value"].to_numpy()
    alone = card.model_copy(
        update={"measure": card.measure.model_copy(update={"inputs": ("denoised",)})}
    )
    without = made(alone)
    assert "indices/raw@fs" not in without
    for name in ("indices/factors", "indices/filter"):
        found, done = after[name], done_of(after[name])
        expected = (found["value"].to_numpy() - raw)[done]
        np.testing.assert_allclose(found["difference"].to_numpy()[done], expected, atol=1e-6)
        np.testing.assert_array_equal(without[name]["difference"], found["difference"])
        assert np.isnan(found["difference"].to_numpy()[~done]).all()


def test_only_products_are_de_shrunk(after: dict[str, xr.Dataset]) -> None:
    for name in ("indices/raw", "indices/raw@fs", "indices/truth@fs"):
        assert not {"deshrunk", "deshrunk_error", "difference"} & set(after[name].data_vars)


def test_a_step_knows_the_table_that_its_errors_are_from(
    card: Card, after: dict[str, xr.Dataset]
) -> None:
    steps = steps_of(card, Survey.open(card.store), ["denoise", "measure"])
    mine = {step.input.name: step for step in steps if isinstance(step, Measure)}
    (name,) = (name for name in mine if name.startswith("filter"))
    assert mine["raw"].errors == ""
    was, path = mine[name].errors, Path(mine[name].input.checkpoint)
    assert len(was) == 8
    calibrated.write(path, by_hand(0.3))
    assert mine[name].errors != was
    calibrated.write(path, by_hand())
    assert mine[name].errors == was


def test_another_table_makes_the_indices_of_a_product_anew(tmp_path: Path) -> None:
    path = save(tmp_path, "filter", factors(ingested(tmp_path, 80)))
    card = card_of(tmp_path, {"where": "class == 'GALAXY'", "model": "filter"})
    survey = Survey.open(card.store)
    steps = steps_of(card, survey, ["denoise", "measure"])
    with writing(card.store, "test") as writer:
        stale.prepare(writer, card, steps, survey)
    for error in (0.1, 0.3):
        calibrated.write(path, by_hand(error))
        whys = {found.group: found.why[0] for found in look(card)}
        (group,) = (name for name, why in whys.items() if why.startswith("errors: "))
        assert group == f"indices/{CONFIG}/{path.name}"
        with writing(card.store, "test") as writer:
            stale.prepare(writer, card, steps, Survey.open(card.store))
        assert not any(found.why[0].startswith("errors: ") for found in look(card))
    kinds = Survey.open(card.store).dataset(group)["error_kind"].attrs["flag_meanings"]
    assert kinds.endswith("calibrated_draws calibrated")


def whole(value: float) -> np.ndarray:
    return np.full((2, 1), value)


TABLE = dict.fromkeys(NUMBERS, whole(2.0)) | {"intercept": whole(0.0)}


def found_for(value: float, drawn: float | None, **table: float) -> tuple[float, int]:
    known = TABLE | {name: whole(number) for name, number in table.items()}
    given = None if drawn is None else whole(drawn)
    flag = np.full((2, 1), Flag.NO_ERROR, "u1")
    found = errors_of(whole(value), flag, given, known)
    assert (found.flag[0, 0] == 0) == np.isfinite(found.error[0, 0])
    return float(found.error[0, 0]), int(found.kind[0, 0])


def test_the_best_error_that_there_is_is_given() -> None:
    assert found_for(1.0, 0.5) == (1.0, ErrorKind.CALIBRATED_DRAWS)
    assert found_for(1.0, None) == (2.0, ErrorKind.CALIBRATED)
    # Where a draw has no index, the table has a number still.
    assert found_for(1.0, np.nan) == (2.0, ErrorKind.CALIBRATED)
    # Draws that are all alike are none.
    assert found_for(1.0, 0.0) == (2.0, ErrorKind.CALIBRATED)
    assert found_for(1.0, 0.5, factor=np.nan, error=np.nan) == (0.5, ErrorKind.DRAWS)


@pytest.mark.parametrize("drawn", [None, 0.5])
def test_no_value_has_no_error(drawn: float | None) -> None:
    error, kind = found_for(np.nan, drawn)
    assert np.isnan(error)
    assert kind == ErrorKind.NONE


def test_a_slope_that_is_hardly_there_is_not_divided_by() -> None:
    flag = np.zeros((2, 1), "u1")
    slope = np.array([[LEAST_SLOPE], [LEAST_SLOPE - 0.01]])
    found = errors_of(whole(1.0), flag, None, TABLE | {"slope": slope})
    np.testing.assert_allclose(found.deshrunk, [[1 / LEAST_SLOPE], [np.nan]])
    np.testing.assert_allclose(found.deshrunk_error, [[2], [np.nan]])


def test_tables_are_made_for_what_lacks_them_and_training_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "missing", lambda _: {})
    monkeypatch.setattr(train.fit, "session", lambda *_, **__: pytest.fail("taught"))
    save(tmp_path, "factors", factors(ingested(tmp_path, 80)))
    models = [{"name": "factors", "card": "ppca"}, {"name": "absent", "card": "pca"}]
    about = {"train": {"model": models}, "verdict": {"calibrate": 20}}
    card = card_of(tmp_path, **about)
    (path,) = calibrate.lacking(card)
    assert not train.is_done(card)
    assert train.train(card).startswith(f"  {path.name}: errors from 1")
    assert train.is_done(card)
    assert checkpoint.load(path).errors.recipe == calibrate.recipe(card)
    other = card_of(tmp_path, **about, measure={"indices": ["Mgb"]})
    assert calibrate.lacking(other) == [path]
    assert calibrate.lacking(card_of(tmp_path, **about, run={"dir": str(tmp_path), "seed": 5}))
    (path / "errors.json").write_text("cut short")
    assert calibrate.lacking(card) == [path]
    assert calibrate.lacking(card_of(tmp_path, **about | {"verdict": {"calibrate": 0}})) == []


SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)


def shown(stream: str) -> Shown:
    about = {"measure": partial(measured, NAMES), "names": NAMES, "seed": 1}
    return draw(mock("mock-v1")[0], named("fs"), SDSS, n=120, stream=stream, **about)


@pytest.mark.slow
def test_errors_cover_on_independent_mocks_and_those_of_the_posterior_do_not() -> None:
    flux = mock("mock-v1")[0].truth(400, SDSS, 1, "components")
    place = flux["z"].to_numpy(), flux["ebv"].to_numpy()
    exact = np.full_like(flux["flux"].to_numpy(), NOISELESS)
    batch = FRAME.on(SDSS).to(flux["flux"].to_numpy(), exact, *place)
    clean = batch.x[batch.ok & (batch.missing < 0.01)]
    _, widths, vectors = torch.linalg.svd(clean - clean.mean(0), full_matrices=False)
    model = ModelCard(model="ppca", options={"components": 6}).build(FRAME.grid)
    loading = vectors[:6].T * widths[:6] / len(clean) ** 0.5
    model.load_state_dict({**model.state_dict(), "mean": clean.mean(0), "loading": loading})
    taught, fresh = shown("calibrate"), shown("coverage")
    found = table_of(model, taught, draws=16, seed=1)
    known = found.look_up(NAMES, fresh.kind, fresh.batch.z.numpy(), fresh.snr)
    output, drawn = answers(model, fresh, draws=16, seed=2)
    apart = np.abs(output - fresh.truth)
    covers = (apart < drawn * known["factor"]).mean(0)
    # Of 960 spectra each, two samples.
    tolerated = 0.05 + np.sqrt(0.68 * 0.32 * 2 / (120 * len(BINS)))
    np.testing.assert_allclose(covers, 0.683, atol=tolerated)
    np.testing.assert_allclose((apart < known["error"]).mean(0), 0.683, atol=tolerated)
    # Six components are far from all that galaxies can be, and the posterior does not know it.
    assert ((apart < drawn).mean(0) < 0.683 - tolerated).all()
