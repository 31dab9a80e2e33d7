"""Tables of errors are made by the rules that the survey is measured by, and used for no others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import calibrate, errors
from pipeline.block import Block
from pipeline.card import Card
from pipeline.card_measure import Measure
from pipeline.errors import Denoised, ErrorKind
from pipeline.index import find, measure
from pipeline.index_rules import Rules
from pipeline.judges import lies_on
from pipeline.passes import Pass, steps_of
from storage.grid import Grid
from storage.store import Survey
from tests.pipeline.error_table import TABLED, by_hand
from tests.pipeline.our_table import OURS
from tests.pipeline.scene import FOOTPRINT, card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, FRAME
from training import calibrated, checkpoint
from training.calibrate import answers
from training.frame import Frame
from training.frames import named

LICK = {"resolution": "lick"}
NARROW = Grid(kind="linear", start=5400.0, step=1.0, size=300)
"Beyond Mgb at rest, which comes in at z = 0.05 and has left at 0.1."


def seen_at(rest: bool) -> Frame:
    return Frame(name="narrow", grid=NARROW, window=(5450.0, 5650.0), rest=rest)


def card(folder: Path, *models: str, **measure: Any) -> Card:
    asked = {"model": [{"name": name, "card": "butterworth"} for name in models]}
    return card_of(folder, train=asked, verdict={"calibrate": 20}, measure=measure)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rules")
    save(found, "factors", factors(ingested(found, 80)))
    save(found, "here")
    return found


def test_what_is_as_ever_is_called_by_its_name() -> None:
    assert Rules.of(Measure()).keys == ("Dn4000", "HdeltaF", "Mgb")


def test_an_index_by_another_rule_is_another_one_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(OURS)
    asked: list[dict[str, Any]] = [
        {"indices": ("Mgb",)},
        {"indices": ("Mgb",), **LICK},
        {"indices": ("Mgb",), "missing": 0.2},
        {"indices": ("Mgb",), "missing": 0.3},
        {"indices": ("Mgb",), "emission": "subtract", "lines": ("denoised",)},
        {"indices": ("Ours",), "tables": (str(path),)},
    ]
    keys = [Rules.of(Measure(**table)).keys[0] for table in asked]
    assert len(set(keys)) == len(keys)
    assert [key.partition("@")[0] for key in keys] == ["Mgb"] * 5 + ["Ours"]
    path.write_text(OURS.replace("6030.0]", "6029.0]"))
    assert Rules.of(Measure(**asked[-1])).keys[0] not in keys
    # Of which indices are measured beside it, an index does not depend.
    assert Rules.of(Measure(indices=("Dn4000", "Mgb"), **LICK)).keys[1] == keys[1]


@pytest.mark.parametrize("rule", [LICK, {"missing": 0.2}])
def test_another_rule_wants_another_table(folder: Path, rule: dict[str, Any]) -> None:
    usual, other = card(folder, "here"), card(folder, "here", **rule)
    assert calibrate.recipe(usual) != calibrate.recipe(other)
    (path,) = calibrate.lacking(usual)
    calibrated.write(path, by_hand().model_copy(update={"recipe": calibrate.recipe(usual)}))
    assert calibrate.lacking(usual) == []
    assert calibrate.lacking(other) == [path]
    (path / "errors.json").unlink()


def test_mocks_are_measured_at_the_resolution_of_the_card(folder: Path) -> None:
    shown = calibrate.shown_on(card(folder, indices=["Mgb"], **LICK), FRAME)
    native = calibrate.shown_on(card(folder, indices=["Mgb"]), FRAME)
    assert native.lsf is None
    assert shown.lsf is not None
    assert shown.names == Rules.of(Measure(indices=("Mgb",), **LICK)).keys
    # The same galaxies: lines that are smoothed are weaker within their bands.
    assert (shown.truth < native.truth).mean() > 0.9
    # Of SDSS: 69 km/s a pixel, 0.9 to 1.2 of them; the frame has pixels of 1 A at rest.
    there = shown.lsf[:, 1400:1500] > 0
    spread = shown.lsf[:, 1400:1500][there].numpy()
    assert ((spread > 0.8) & (spread < 1.7)).all()
    found = shown.indices(shown.batch.x)
    expected = measure(FRAME.grid.wavelength, shown.batch.x, None, ("Mgb",), lsf=shown.lsf)
    np.testing.assert_array_equal(found, expected.value)
    noisy = measure(
        FRAME.grid.wavelength, shown.batch.x, shown.batch.weight, ("Mgb",), lsf=shown.lsf
    )
    np.testing.assert_array_equal(shown.noisy, noisy.value)
    # Each draw of the posterior is smoothed like the spectrum that it is of.
    model = checkpoint.load(next((folder / "checkpoints").glob("factors-*"))).model
    sharp, smooth = (answers(model, each, draws=16, seed=1)[1] for each in (native, shown))
    assert (smooth < sharp).mean() > 0.9


def test_a_table_by_other_rules_gives_no_error(tmp_path: Path) -> None:
    path = save(tmp_path, "filter")
    calibrated.write(path, by_hand())
    model = checkpoint.load(path)
    wave = FRAME.grid.wavelength
    flux = 1 - 0.4 * np.exp(-0.5 * ((wave - np.array([[4103.0]])) / 5) ** 2)
    rows = Denoised(
        flux=torch.from_numpy(flux),
        latent=None,
        cov=None,
        kind=np.array(["GALAXY"]),
        z=np.array([0.05]),
        snr=np.array([8.0]),
        lsf=torch.full(flux.shape, 1.2, dtype=torch.float64),
    )
    for rule, kind in (({}, ErrorKind.CALIBRATED), (LICK, ErrorKind.NONE)):
        rules = Rules.of(Measure(indices=TABLED, **rule))
        found = errors.measured(model, rows, rules, draws=16, seed=1)
        assert np.isfinite(found.value).all()
        assert (found.kind == kind).all()
        assert (np.isfinite(found.error) == (kind == ErrorKind.CALIBRATED)).all()
        assert (np.isfinite(found.deshrunk) == (kind == ErrorKind.CALIBRATED)).all()


def test_where_lines_are_taken_out_of_products_there_is_no_table(folder: Path) -> None:
    about = {"emission": "subtract", "indices": ["Hbeta"]}
    assert len(calibrate.lacking(card(folder, "here", lines=["raw"], **about))) == 1
    without = card(folder, "here", lines=["raw", "denoised"], **about)
    assert calibrate.lacking(without) == []
    assert calibrate.run(without) == []


@pytest.mark.parametrize(
    ("name", "z", "rest", "there"),
    [
        ("Mgb", (0.0, 0.0), True, False),
        ("Mgb", (0.02, 0.2), True, False),
        ("Mgb", (0.0, 0.0), False, False),
        ("Mgb", (0.02, 0.2), False, True),
        ("Mgb", (0.02, 0.04), False, False),
        ("Mgb", (0.12, 0.2), False, False),
        # Longer than the frame: each end is on it at some z, but never both.
        ("Mg2", (0.0, 0.5), False, False),
        ("Fe5709", (0.0, 0.0), True, False),
        ("Fe5406", (-0.001, 0.01), False, True),
    ],
)
def test_an_index_lies_on_a_frame_where_its_bands_do(
    name: str, z: tuple[float, float], rest: bool, there: bool
) -> None:
    assert lies_on(find(name), seen_at(rest), z) == there


def test_a_model_whose_frame_no_index_reaches_draws_no_mocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingested(tmp_path, 80)
    paths = [
        save(tmp_path, name, frame=frame)
        for name, frame in (
            ("star", named("star")),
            ("rest", seen_at(True)),
            ("seen", seen_at(False)),
        )
    ]
    monkeypatch.setattr(calibrate, "shown_on", lambda *_: pytest.fail("drawn"))
    asked = card(tmp_path, "star", "rest", indices=["Dn4000", "Mgb"])
    assert calibrate.lacking(asked) == []
    assert calibrate.run(asked) == []
    # A footprint says at which redshifts lines come in.
    assert FOOTPRINT.z == (0.02, 0.13)
    asked = card(tmp_path, "star", "rest", "seen", indices=["Dn4000", "Mgb"])
    assert calibrate.lacking(asked) == [paths[2]]
    asked = card(tmp_path, "star", "rest", "seen", indices=["Dn4000", "aTiO"])
    assert calibrate.lacking(asked) == [paths[1]]


def difference(asked: Card) -> np.ndarray:
    """Of Hbeta in the first rows, denoised minus noisy, as one pass makes it."""
    survey = Survey.open(asked.store)
    steps = tuple(steps_of(asked, survey, ["denoise", "measure"]))
    groups = frozenset(step.group for step in steps)
    work = Pass(store=asked.store, snapshot=survey.snapshot, config=CONFIG, steps=steps)
    block = Block(first=0, last=12, groups=groups)
    made = work(block, work.read(block))
    (group,) = (name for name in groups if name.startswith(f"indices/{CONFIG}/here"))
    return np.asarray(made[group]["difference"].to_numpy())


def test_two_spectra_of_which_one_lost_its_lines_are_not_compared(folder: Path) -> None:
    def of(*lines: str) -> np.ndarray:
        about = {"inputs": ["raw@frame", "denoised"], "indices": ["Hbeta"], "lines": lines}
        asked = {"measure": {**about, "emission": "subtract" if lines else "keep"}}
        return difference(card_of(folder, {"where": "z < 0.2", "model": "here"}, **asked))

    kept = of()
    assert np.isfinite(kept).any()
    # The product has its lines still, and so has what it is compared with.
    np.testing.assert_array_equal(of("raw@frame"), kept)
    assert np.isnan(of("denoised")).all()
