"""Two models on two frames in one store, from products to the judgement on them."""

from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from pipeline import index, stage
from pipeline import product as products
from pipeline.card import Card
from pipeline.evaluate import evaluate
from pipeline.examples import examples, portrait
from pipeline.measure import ErrorKind
from pipeline.passes import is_done, run
from pipeline.query import open_survey
from storage.grid import Grid
from storage.schema import Split, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG, FRAME, GRID
from training.frame import Frame

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

N = 200
NAMES = ("Dn4000", "HdeltaF", "Mgb")
SEEN = Frame(
    name="seen",
    grid=Grid(kind="log", start=3.57, step=2e-4, size=1800),
    window=(5300, 5850),
    rest=False,
    window_rest=True,
    norm="median",
)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Card:
    """Near galaxies by a model at rest, far ones by one that sees observed wavelengths."""
    folder = tmp_path_factory.mktemp("frames")
    path = ingested(folder, N)
    save(folder, "rest", factors(path))
    save(folder, "seen", factors(path, frame=SEEN), frame=SEEN)
    near, far = {"where": "z < 0.08", "model": "rest"}, {"where": "z >= 0.08", "model": "seen"}
    found = card_of(folder, near, far)
    with writing(path, "test") as writer:
        writer.write_columns(SPECTRA, 0, {"split": np.full(N, Split.TEST, "u1")})
        writer.commit("all are for tests", {"group": SPECTRA})
    run(found, client)
    return found


def group(card: Card, head: str) -> xr.Dataset:
    survey = Survey.open(card.store)
    (name,) = (name for name in survey.groups() if name.startswith(head))
    return survey.dataset(name).load()


def test_what_is_noisy_or_true_is_measured_on_every_frame(card: Card) -> None:
    groups = [name for name in Survey.open(card.store).groups() if name.startswith("indices/")]
    given = {name.rpartition("/")[2] for name in groups}
    framed = {f"{kind}@{f.label}" for kind in ("raw", "truth", "model") for f in (FRAME, SEEN)}
    assert framed <= given
    assert len(given) == len(framed) + 3
    assert is_done(card)


def test_indices_on_an_observed_axis_are_those_at_the_redshift(card: Card) -> None:
    ds = Survey.open(card.store).dataset(SPECTRA).load()
    found = group(card, f"indices/{CONFIG}/raw@{SEEN.label}")
    batch = SEEN.on(GRID).to(*(ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")))
    expected = index.measure(SEEN.grid.wavelength, batch.x, batch.weight, NAMES, z=batch.z)
    done = (found["status"] == Status.DONE).to_numpy()
    assert done.sum() == N - 2
    np.testing.assert_allclose(found["value"][done], expected.value[done], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["error"][done], expected.error[done], rtol=1e-4)


def test_the_truth_is_the_same_galaxy_on_both_frames(card: Card) -> None:
    rest, seen = (group(card, f"indices/{CONFIG}/truth@{f.label}") for f in (FRAME, SEEN))
    done = (rest["status"] == Status.DONE).to_numpy()
    apart = (rest["value"] - seen["value"])[done].to_numpy()
    # One is rebinned to 1 A: lines are a little broader there.
    assert (np.abs(apart) < [0.02, 0.1, 0.1]).all()


def test_a_product_on_an_observed_axis_is_measured_at_its_redshifts(card: Card) -> None:
    made, found = (group(card, f"{kind}/{CONFIG}/seen-") for kind in ("denoised", "indices"))
    done = (made["status"] == Status.DONE).to_numpy()
    assert done.sum() > 50
    z = Survey.open(card.store).dataset(SPECTRA)["z"].to_numpy()
    flux = made["flux"].to_numpy()
    expected = index.measure(SEEN.grid.wavelength, flux, None, NAMES, z=z).value
    np.testing.assert_allclose(found["value"][done], expected[done], rtol=1e-6)
    error = found["error"].to_numpy()[done]
    assert (error > 0).all()
    assert (found["error_kind"].to_numpy()[done] == ErrorKind.DRAWS).all()


def test_each_product_is_judged_on_its_own_frame(card: Card) -> None:
    found = {one["alias"]: one for one in evaluate(card)["products"]}
    for alias, frame in (("rest", FRAME), ("seen", SEEN)):
        assert found[alias]["frame"] == frame.label
        assert found[alias]["reference"] == f"truth@{frame.label}"
        heads = (f"{alias}-", f"raw@{frame.label}", f"truth@{frame.label}")
        out, raw, true = (group(card, f"indices/{CONFIG}/{head}")["value"] for head in heads)
        for column, name in enumerate(NAMES):
            said = found[alias]["indices"][name]
            rows = np.isfinite(out + raw + true).to_numpy()[:, column]
            assert said["n"] == rows.sum() > 50
            for key, of in (("delta_o", out), ("noise", raw)):
                expected = (of - true).to_numpy()[rows, column].std()
                assert said[key] == pytest.approx(expected), (alias, name, key)


def test_the_default_value_of_a_row_is_that_of_its_own_model(card: Card) -> None:
    ds = open_survey(card.store, CONFIG)
    inputs = np.array(ds["best.input"].attrs["flag_meanings"].split())
    chosen = inputs[ds["best.input"].to_numpy()]
    for alias, frame in (("rest", FRAME), ("seen", SEEN)):
        made = ds.spectra.denoised(alias)
        done = (made["status"] == Status.DONE).to_numpy()
        doubt = made["flag"].to_numpy() > 0
        assert (done & doubt).any()
        assert {name.partition("-")[0] for name in chosen[done & ~doubt]} == {alias}
        assert set(chosen[done & doubt]) == {f"raw@{frame.label}"}


def test_an_example_on_an_observed_axis_is_shown_at_rest(card: Card) -> None:
    ds = open_survey(card.store, CONFIG)
    done = (ds.spectra.denoised("seen")["status"] == Status.DONE).to_numpy()
    (given,) = examples(ds, "seen", done, 1)
    z = float(given.title.split("z = ")[1].split()[0])
    np.testing.assert_allclose(given.wavelength, SEEN.grid.wavelength / (1 + z), rtol=1e-3)
    assert given.reference is not None
    good = np.isfinite(given.noisy)
    left = (given.denoised - given.reference)[good] / given.reference[good]
    assert np.abs(left).mean() < 0.05
    assert portrait(given).startswith("data:image/png")
