"""The reduced cards, trained in one Ray session, do better than the average galaxy or star.

`pytest tests/pipeline/test_small_cards.py -n 0 -s` prints what each took. Two idle cores train any
of them in less than 20 s.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import judges
from pipeline.simulate import mock
from storage.grid import Grid
from tests.pipeline.scene import card_of
from training import star_verdict
from training.fit import train
from training.frame import Frame
from training.frames import named
from training.loop import loop
from training.model import Denoiser
from training.recipe import Fit, ModelCard
from training.session import session
from training.source import ArraySource
from training.statistics import Statistics
from training.task import Task
from training.trials import Trials, examine, linear
from training.verdict import Verdict, deciding, judge

CARDS = Path(__file__).parents[2] / "deploy/cards/models"
GALAXIES = (
    "fs-small",
    "cs-small",
    "nw-small",
    "nws-small",
    "ae-small",
    "vae-small",
    "spender-small",
    "spender-sr-small",
    "spender-ensemble-small",
)
STARS = ("dae-small", "unet-small")
SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
ROWS, WATCHED = 3300, 300
JUDGED = 500
"Mocks that no model has seen."
DECIDES = "5-6"
BINS: dict[str, tuple[float, float] | None] = {DECIDES: (5.0, 6.0)}
SEED = 1

Taught = Callable[[str], tuple[Denoiser, Frame]]
pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    """A model that learnt by its card, and the frame that it sees; one session for all of them."""
    folder = tmp_path_factory.mktemp("training")
    with session(threads=2):
        yield cache(lambda name: learn(name, folder))


def learn(name: str, folder: Path) -> tuple[Denoiser, Frame]:
    card = ModelCard.load(CARDS / f"{name}.toml")
    source = survey("star-v1" if name in STARS else "mock-v1")
    work = task(card, source)
    began = time.perf_counter()
    found = train(work, folder, name, threads=2)
    whole = time.perf_counter() - began
    seconds = sum(record["seconds"] for record in found.history)
    print(f"\n{name}: {len(found.history)} epochs in {seconds:.1f} s, {whole:.1f} s in all")
    return found.model, work.frame


def task(card: ModelCard, source: ArraySource) -> Task:
    return Task(
        card=card,
        source=source,
        frame=named(card.frame or "fs"),
        train=np.arange(WATCHED, ROWS),
        val=np.arange(WATCHED),
    )


@cache
def survey(name: str) -> ArraySource:
    """What teaches, at the S/N that a survey has."""
    made, _ = mock(name)
    truth = made.truth(ROWS, SDSS, SEED, "small")
    seen = made.observe(truth, SDSS, SEED, "small")
    arrays = {name: seen[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")}
    return ArraySource(grid=SDSS, arrays=arrays | {"truth": truth["flux"].to_numpy()})


@cache
def galaxies(frame: Frame) -> Trials:
    made, _ = mock("mock-v1")
    card = card_of(Path("x"), run={"dir": "x", "seed": SEED}, verdict={"reference": 1500})
    references = judges.references_of(card, made, judges.at_rest(card, frame), SDSS)
    return judges.answered(card, made, frame, SDSS, references, JUDGED, BINS)


@cache
def stars(frame: Frame) -> star_verdict.Trials:
    made, _ = mock("star-v1")
    reference = linear(made, frame, SDSS, 1500, SEED)
    return star_verdict.trial(made, frame, SDSS, reference, n=JUDGED, seed=SEED, bins=BINS)


def judged(model: Denoiser, frame: Frame) -> Verdict:
    """As a survey whose S/N begins at 4.5, which that of mock-v1 does, has its models judged."""
    bins = deciding((4.5, 45.0))
    found = judge(examine(model, galaxies(frame)), ROWS - WATCHED, bins, SEED)
    said = (f"{k} {s.delta_o.value / s.scatter.value:.2f}" for k, s in of(found).items())
    print("  of the average galaxy's:", *said, f"rms {found.rms[DECIDES]['output'].value:.2f}")
    return found


def of(verdict: Verdict) -> dict[str, Statistics]:
    return verdict.statistics[DECIDES]


@pytest.mark.parametrize("name", GALAXIES)
def test_a_reduced_card_does_not_paint_the_average_galaxy(name: str, taught: Taught) -> None:
    found = judged(*taught(name))
    trivial = [finding for finding in found.findings if finding.test == "trivial"]
    assert [finding.index for finding in trivial if finding.decides] == [*judges.INDICES]
    assert [finding.words for finding in trivial if not finding.passed] == []


@pytest.mark.parametrize("name", STARS)
def test_a_reduced_card_is_nearer_to_stars_than_mean_and_noise(name: str, taught: Taught) -> None:
    model, frame = taught(name)
    found = star_verdict.judge(model, stars(frame), ROWS - WATCHED, (DECIDES,), SEED)
    off = of(found)[star_verdict.NAME]
    for known in (off.scatter, off.noise):
        print(f"  {off.delta_o.value / known.value:.2f}", end="")
    assert found.passed, found.reason
    assert off.delta_o.value < 0.7 * min(off.scatter.value, off.noise.value)


@pytest.mark.parametrize("name", ["ae-small", "vae-small"])
def test_four_latents_say_more_than_four_components(name: str, taught: Taught) -> None:
    card = ModelCard.load(CARDS / f"{name}.toml")
    linear = {"model": "pca", "options": {"components": 4}, "fit": Fit(epochs=1)}
    work = task(card.model_copy(update=linear), survey("mock-v1"))
    components = work.card.build(work.frame.grid)
    loop(components, work.batches("train"), None, work.card.fit)
    assert off(judged(*taught(name))) < off(judged(components, work.frame))


def off(verdict: Verdict) -> float:
    return verdict.rms[DECIDES]["output"].value
