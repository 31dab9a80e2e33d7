"""What teaches has the noise, the target and the errors that the card asks for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from storage.grid import Grid
from training.augment import Augment
from training.batch import Batch, join
from training.batches import Batches
from training.frame import Frame
from training.recipe import ModelCard
from training.source import ArraySource
from training.task import Task

# Pixels of the frame are pixels of the survey: noise is seen as it was drawn.
GRID = Grid(kind="linear", start=4000, step=2, size=200)
FRAME = Frame(name="t", grid=GRID, window=(4010, 4390), dust=None)
SDSS = Grid(kind="log", start=3.6, step=1e-4, size=900)
REST = Frame(name="r", grid=Grid(kind="linear", start=3900, step=1, size=700), window=(4000, 4500))


def arrays(n: int = 300, grid: Grid = GRID, seed: int = 0) -> dict[str, Any]:
    """Noisy spectra of flux 10, S/N 5 to 40, with a bump; one pixel in 50 is missing."""
    random = np.random.default_rng(seed)
    truth = 10 + 2 * np.exp(-0.5 * ((grid.wavelength - 4200) / 30) ** 2) + np.zeros((n, 1))
    ivar = random.uniform(0.25, 16, truth.shape)
    flux = truth + random.normal(size=truth.shape) / np.sqrt(ivar)
    gone = random.random(truth.shape) < 0.02
    flux[gone], ivar[gone] = 0, 0
    names = {"flux": flux, "ivar": ivar, "truth": truth}
    found = {name: values.astype("f4") for name, values in names.items()}
    return {**found, "z": np.zeros(n), "ebv": np.zeros(n)}


def batches(content: dict[str, Any], frame: Frame = FRAME, **augment: Any) -> Batches:
    grid = GRID if content["flux"].shape[1] == GRID.size else SDSS
    n = len(content["flux"])
    return Batches(
        source=ArraySource(grid=grid, arrays=content, chunk=64),
        rows=np.arange(n),
        frame=frame,
        batch_size=32,
        augment=Augment(**augment),
        shuffle=False,
    )


def whole(given: Batches, epoch: int = 0) -> Batch:
    return join(list(given.epoch(epoch)))


def seen(batch: Batch) -> np.ndarray:
    """The input in the unit of the survey."""
    return (batch.x * batch.scale[:, None]).numpy()


def wanted(batch: Batch) -> np.ndarray:
    assert batch.target is not None
    return (batch.target * batch.scale[:, None]).numpy()


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a is b or torch.equal(a, b) for a, b in pairs)


def test_by_default_the_spectrum_is_its_own_target() -> None:
    batch = whole(batches(arrays()))
    assert batch.target is None
    assert batch.wanted[0] is batch.x


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_split_noise_of_input_and_target_is_independent(share: float) -> None:
    content = arrays(1000)
    batch = whole(batches(content, noise="split", share=share))
    good = content["ivar"] > 0
    sigma = 1 / np.sqrt(np.where(good, content["ivar"], 1))
    first = ((seen(batch) - content["truth"]) / sigma)[good]
    second = ((wanted(batch) - content["truth"]) / sigma)[good]
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(first))
    # The error of a variance of n numbers is sqrt(2 / n) of it: 0.3 % here.
    assert np.var(first) == pytest.approx(1 + share**2, rel=0.015)
    assert np.var(second) == pytest.approx(1 + 1 / share**2, rel=0.015)
    # What was added to one was taken from the other.
    mean = (seen(batch) + share**2 * wanted(batch)) / (1 + share**2)
    np.testing.assert_allclose(mean[good], content["flux"][good], rtol=1e-4, atol=1e-4)
    scale = batch.scale[:, None].square()
    assert batch.target_weight is not None
    for weight, factor in ((batch.weight, 1 + share**2), (batch.target_weight, 1 + share**-2)):
        np.testing.assert_allclose(weight / scale, content["ivar"] / factor, rtol=1e-4)


def test_fresh_noise_is_that_of_the_ivar_and_the_target_has_none() -> None:
    content = arrays(1000)
    content["truth"][:, :5] = 0
    given = batches(content, target="truth", noise="fresh")
    batch, good = whole(given), content["ivar"] > 0
    good[:, :5] = False
    assert np.array_equal(batch.weight.numpy() > 0, good)
    noise = (seen(batch) - content["truth"])[good] * np.sqrt(content["ivar"][good])
    assert np.mean(noise) == pytest.approx(0, abs=4 / np.sqrt(noise.size))
    assert np.var(noise) == pytest.approx(1, rel=0.015)
    weight = (batch.weight / batch.scale[:, None].square()).numpy()
    np.testing.assert_allclose(weight[good], content["ivar"][good], rtol=1e-4)
    known = content["truth"] > 0
    np.testing.assert_allclose(wanted(batch)[known], content["truth"][known], rtol=1e-5)
    assert batch.target_weight is not None
    assert np.array_equal(batch.target_weight.numpy(), known.astype("f4"))
    another = whole(given, 1)
    again = (seen(another) - content["truth"])[good] * np.sqrt(content["ivar"][good])
    assert abs(np.corrcoef(noise, again)[0, 1]) < 4 / np.sqrt(noise.size)


def test_rebinned_fresh_noise_is_correlated_like_the_survey_s_own() -> None:
    content = arrays(600, SDSS)
    fine = Frame(
        name="f", grid=Grid(kind="linear", start=4000, step=0.7, size=800), window=(4000, 4500)
    )
    truth = whole(batches(content, fine, target="truth"))
    own = seen(truth) - wanted(truth)
    fresh = whole(batches(content, fine, target="truth", noise="fresh"))
    drawn = seen(fresh) - wanted(fresh)
    for lag in (1, 2):
        expected, actual = (
            np.corrcoef(noise[:, 100:-lag].ravel(), noise[:, 100 + lag :].ravel())[0, 1]
            for noise in (own, drawn)
        )
        assert actual == pytest.approx(expected, abs=0.01)
    assert expected < 0.05
    assert np.std(drawn) == pytest.approx(np.std(own), rel=0.01)


def test_a_truth_goes_through_the_frame_on_the_scale_of_the_input() -> None:
    content = arrays(100, SDSS)
    content |= {"z": np.linspace(0.01, 0.08, 100), "ebv": np.linspace(0, 0.4, 100)}
    content["truth"][7] = 0
    batch = whole(batches(content, REST, target="truth"))
    sure = np.full_like(content["truth"], 1e8)
    expected = REST.on(SDSS).to(content["truth"], sure, content["z"], content["ebv"])
    rows = torch.arange(100) != 7
    torch.testing.assert_close(
        (batch.target * batch.scale[:, None])[rows], (expected.x * expected.scale[:, None])[rows]
    )
    plain = whole(batches(content, REST))
    assert torch.equal(batch.x[rows], plain.x[rows])
    assert torch.equal(batch.weight[rows], plain.weight[rows])
    # A row without truth does not teach.
    assert batch.ok.tolist() == rows.tolist()
    assert not batch.x[7].any()
    assert not batch.target_weight[7].any()


def test_a_best_fit_is_a_target_where_there_is_one() -> None:
    content = arrays()
    content["model"] = content.pop("truth")
    content["model"][:, -20:] = 0
    batch = whole(batches(content, target="model"))
    np.testing.assert_allclose(wanted(batch)[:, :-20], content["model"][:, :-20], rtol=1e-5)
    assert not batch.target_weight[:, -20:].any()
    assert (batch.weight[:, -20:] > 0).any()


def test_a_repeat_is_another_spectrum_of_the_object() -> None:
    content = arrays(200)
    content["object_id"] = np.arange(200, dtype="u8") + 1
    content["object_id"][[10, 150, 199]] = 11
    content["object_id"][[20, 21]] = 21
    content["object_id"][[30, 31]] = 0
    given = batches(content, target="repeat")
    assert given.rows.tolist() == [10, 20, 21, 150, 199]
    batch, other = whole(given), np.array([150, 21, 20, 199, 10])
    good = content["ivar"][other] > 0
    np.testing.assert_allclose(wanted(batch)[good], content["flux"][other][good], rtol=1e-4)
    np.testing.assert_allclose(
        batch.target_weight / batch.scale[:, None].square(), content["ivar"][other], rtol=1e-4
    )
    with pytest.raises(ValueError, match="none of 10 rows shows an object that another row shows"):
        replace(given, rows=np.arange(10))


def test_a_wrong_redshift_moves_input_and_target() -> None:
    content = arrays(400, SDSS) | {"z": np.full(400, 0.05)}
    batch = whole(batches(content, REST, target="truth", redshift=300.0))
    velocity = 299792.458 * ((1 + batch.z.numpy()) / 1.05 - 1)
    assert np.std(velocity) == pytest.approx(300, rel=0.15)
    assert batch.target is not None
    bump = (batch.target - batch.target[:, :1]).numpy()[:, :200]
    centre = (bump * REST.grid.wavelength[:200]).sum(1) / bump.sum(1)
    np.testing.assert_allclose(centre, 4200 / (1 + batch.z), atol=0.5)
    assert np.std(centre) > 2


def test_draws_depend_on_seed_epoch_and_chunk_alone() -> None:
    every: dict[str, Any] = {"sigma": 0.1, "noise": "split", "masks": 0.1, "calibration": 0.02}
    given = batches(arrays(), **every)
    assert same(whole(given, 3), whole(batches(arrays(), **every), 3))
    assert not same(whole(given, 3), whole(given, 4))
    assert not same(whole(given, 3), whole(replace(given, seed=1), 3))
    by_rank = [whole(replace(given, rank=rank, world=3), 3) for rank in range(3)]
    alone = {tuple(x.tolist()) for x in whole(given, 3).x}
    assert {tuple(x.tolist()) for batch in by_rank for x in batch.x} == alone
    watched = replace(given, fixed=True)
    assert same(whole(watched, 0), whole(watched, 5))
    assert not same(whole(watched, 0), whole(given, 0))


def test_an_epoch_goes_on_in_its_middle_with_the_same_draws() -> None:
    given = replace(batches(arrays(), noise="split", sigma=0.1), shuffle=True)
    complete = list(given.epoch(2))
    for first in (1, 4, 9):
        assert all(same(a, b) for a, b in zip(complete[first:], given.epoch(2, first), strict=True))


def test_a_run_is_named_by_its_augment() -> None:
    content = arrays(100)

    def task(model: str = "mean", loss: str = "", **augment: Any) -> Task:
        options: dict[str, Any] = {"loss": loss, "sigma": True} if loss else {}
        return Task(
            card=ModelCard.parse({"model": model, "options": options, "augment": augment}),
            source=ArraySource(grid=GRID, arrays=content),
            frame=FRAME,
            train=np.arange(80),
            val=np.arange(80, 100),
        )

    assert task().digest8 == task(target="input").digest8
    assert task().digest8 != task(noise="split").digest8
    given = task(noise="split")
    assert given.batches("train").augment.noise == "split"
    assert not given.batches("train").fixed
    assert given.batches("val").fixed
    assert task("dense", "gaussian", noise="split").card.options
    with pytest.raises(ValueError, match=r"loss 'gaussian' with target 'truth': .* another loss"):
        task("dense", "gaussian", target="truth")
    for model in ("mean", "pca", "ppca", "mppca"):
        with pytest.raises(ValueError, match=rf"{model} with target 'truth' .* the input alone"):
            task(model, target="truth").batches("train")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"noise": "fresh"}, "noise 'fresh' with target 'input': .* use target 'truth' or 'model'"),
        ({"noise": "fresh", "target": "repeat"}, "noise 'fresh' with target 'repeat'"),
        ({"noise": "split", "target": "truth"}, "noise 'split' with target 'truth': it makes its"),
        ({"renorm": "l2"}, "renorm 'l2' without sigma"),
        ({"scale": 1.01}, "less than or equal to 0.2"),
    ],
)
def test_what_does_not_go_together_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment.model_validate(said)
