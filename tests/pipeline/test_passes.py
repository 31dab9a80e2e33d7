"""A pass: denoise and measure over one reading of the survey, and only of what is stale."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from pipeline import product as products
from pipeline import reprocess, stage
from pipeline.block import Bad, Block
from pipeline.card import Card
from pipeline.coverage import _lines
from pipeline.passes import Pass, is_done, look, run, steps_of
from pipeline.route import plan
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, factors, ingested, save
from tests.pipeline.stores import FRAME
from training.recipe import ModelCard

pytestmark = pytest.mark.cluster

N = 200
NEAR, FAR = {"where": "z < 0.08", "model": "factors"}, {"where": "z >= 0.08", "model": "filter"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


def survey_in(folder: Path) -> Card:
    save(folder, "factors", factors(ingested(folder, N)))
    save(folder, "filter")
    return card_of(folder, NEAR, FAR)


def groups(card: Card) -> dict[str, xr.Dataset]:
    survey = Survey.open(card.store)
    made = [name for name in survey.groups() if name.split("/")[0] in ("denoised", "indices")]
    return {name: survey.dataset(name).load() for name in made}


def assert_same(one: dict[str, xr.Dataset], other: dict[str, xr.Dataset]) -> None:
    assert one.keys() == other.keys()
    for name, ds in one.items():
        for variable in ds.variables:
            left, right = ds[variable].to_numpy(), other[name][variable].to_numpy()
            if left.dtype.kind == "T":
                np.testing.assert_array_equal(left, right)
            else:
                assert left.tobytes() == right.tobytes(), f"{name}/{variable}"


def test_one_pass_makes_what_two_make_to_the_bit(tmp_path: Path, client: Client) -> None:
    apart, together = (tmp_path / name for name in ("apart", "together"))
    for folder in (apart, together):
        folder.mkdir()
    one, two = survey_in(apart), survey_in(together)
    run(one, client, ["denoise"])
    run(one, client, ["measure"])
    tallies = run(two, client)
    assert {tally.computed for tally in tallies.values()} == {N}
    assert len(tallies) == 2 + 6
    assert_same(groups(one), groups(two))
    assert is_done(one)
    assert is_done(two)


def test_nothing_is_stale_after_a_key_that_does_not_matter(tmp_path: Path, client: Client) -> None:
    card = survey_in(tmp_path)
    run(card, client)
    other = Card.model_validate(
        {**card.model_dump(mode="json"), "report": {"examples": 2}, "cluster": {"workers": 1}}
    )
    assert look(other) == []


@pytest.mark.slow
def test_a_changed_rule_is_done_again_where_rows_changed_hands_alone(
    tmp_path: Path, client: Client
) -> None:
    card = survey_in(tmp_path)
    run(card, client)
    before = groups(card)
    moved = {**NEAR, "where": "z < 0.09"}, {**FAR, "where": "z >= 0.09"}
    other = card_of(tmp_path, *moved)
    z = Survey.open(card.store).dataset(SPECTRA)["z"].to_numpy()[:-3]
    crossed = int(((z >= 0.08) & (z < 0.09)).sum())
    assert 0 < crossed < N / 2
    said = {stale.group.split("/")[0]: stale for stale in look(other)}
    assert {stale.rows for stale in look(other)} == {crossed}
    assert "z < 0.08" in said["denoised"].why[0]
    assert "z < 0.09" in said["denoised"].why[0]
    run(other, client)
    assert look(other) == []
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    save(fresh, "factors", factors(ingested(fresh, N)))
    save(fresh, "filter")
    anew = card_of(fresh, *moved)
    run(anew, client)
    assert_same(groups(other), groups(anew))
    assert groups(other).keys() == before.keys()


def test_other_draws_concern_the_indices_of_products_alone(tmp_path: Path, client: Client) -> None:
    card = survey_in(tmp_path)
    run(card, client)
    draws = Card.model_validate({**card.model_dump(mode="json"), "measure": {"draws": 20}})
    stale = look(draws)
    assert [one.group.split("/")[0] for one in stale] == ["indices", "indices"]
    assert all(one.why == ("draws: 16 -> 20",) and one.rows == N for one in stale)


def test_a_new_model_leaves_the_old_product_beside_its_own(tmp_path: Path, client: Client) -> None:
    card = survey_in(tmp_path)
    run(card, client)
    before = groups(card)
    other = card_of(tmp_path, {"where": "z < 0.08", "model": "filter"})
    run(other, client)
    after = groups(other)
    (old,) = (name for name in before if name.startswith("denoised/sdss/factors"))
    assert_same({old: before[old]}, {old: after[old]})


@pytest.mark.slow
def test_rows_of_changed_files_are_done_again_everywhere(tmp_path: Path, client: Client) -> None:
    card = survey_in(tmp_path)
    run(card, client)
    with writing(card.store, "test") as writer:
        for group in groups(card):
            writer.reset(group, np.array([3, 5]))
        writer.commit("two rows changed")
    stale = look(card)
    assert {one.rows for one in stale} == {2}
    before = groups(card)
    run(card, client)
    after = groups(card)
    assert is_done(card)
    for name, ds in after.items():
        assert (ds["status"] != Status.PENDING).all()
        assert before[name]["status"][3] == Status.PENDING


@pytest.mark.slow
def test_a_damaged_chunk_takes_its_rows_alone_and_they_come_back(
    tmp_path: Path, client: Client
) -> None:
    card = survey_in(tmp_path)
    mend = _flip(tmp_path / "survey.icechunk")
    tallies = run(card, client)
    for name, ds in groups(card).items():
        assert (ds["status"] == Status.QUARANTINED).all(), name
        assert (ds["reason_code"] == Reason.STORE_DAMAGED).all(), name
    assert {tally.rows[Status.QUARANTINED] for tally in tallies.values()} == {N}
    assert is_done(card)
    mend()
    stage.reading.cache_clear()
    client.restart()
    assert reprocess.retry(card) == N
    run(card, client)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    anew = survey_in(fresh)
    run(anew, client)
    assert_same(groups(card), groups(anew))


def _flip(store: Path) -> Callable[[], None]:
    """Change one byte of the flux, the largest chunk; gives the way back."""
    chunk = max((store / "chunks").rglob("*"), key=lambda path: path.stat().st_size)
    sound = chunk.read_bytes()
    middle = len(sound) // 2
    chunk.write_bytes(sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :])

    def mend() -> None:
        chunk.write_bytes(sound)

    return mend


def test_precision_is_chosen_once_on_the_survey_and_kept(tmp_path: Path, client: Client) -> None:
    ingested(tmp_path, N)
    made = ModelCard(model="dense", options={"widths": [FRAME.grid.size, 8, FRAME.grid.size]})
    save(tmp_path, "net", (made, made.build(FRAME.grid)))
    card = card_of(tmp_path, {"model": "net"}, denoise={"precision": "auto"})
    run(card, client, ["denoise"])
    (group,) = (name for name in groups(card) if name.startswith("denoised"))
    about = Survey.open(card.store).attrs(group)
    assert about["precision_asked"] == "auto"
    assert about["precision"] in ("float32", "medium", "bfloat16")
    assert about["precision_rows"] > 0
    plain = card_of(tmp_path, {"model": "net"})
    assert look(plain, ["denoise"])[0].why == ("precision: auto -> float32",)


@pytest.mark.slow
def test_coverage_says_what_each_route_took(tmp_path: Path, client: Client) -> None:
    save(tmp_path, "factors", factors(ingested(tmp_path, N)))
    nowhere = {"where": "class == 'STAR'", "model": "none", "reason": "stars have no model"}
    card = card_of(tmp_path, nowhere, NEAR)
    run(card, client, ["denoise"])
    said = {line[0]: (line[1], line[2]) for line in _lines(card, plan(card))}
    ds = Survey.open(card.store).dataset(SPECTRA).load()
    (product,) = groups(card).values()
    usable = ((ds["status"] == Status.DONE) & (ds["object_type"] == 0)).to_numpy()
    near = usable & (ds["z"] < 0.08).to_numpy() & (ds["class"].to_numpy() != "STAR")
    done = int((product["status"] == Status.DONE).sum())
    assert said["class == 'STAR'"][0] == "none: stars have no model"
    assert said["class == 'STAR'"][1][0] == 1
    assert said["z < 0.08"][1][:2] == [int(near.sum()), done]
    assert sum(counts[0] or 0 for _, counts in said.values()) == N


def test_what_is_made_of_the_others_does_not_change_when_a_row_is_left_out(
    tmp_path: Path, client: Client
) -> None:
    card = survey_in(tmp_path)
    run(card, client)
    survey = Survey.open(card.store)
    steps = tuple(steps_of(card, survey, ["denoise", "measure"]))
    work = Pass(store=card.store, snapshot=survey.snapshot, config="sdss", steps=steps)
    farthest = int(survey.read_column(SPECTRA, "z")[:-3].argmax())
    bad = (Bad(row=farthest, code=Reason.FAILED, text="left out"),)
    lacking = frozenset(step.group for step in steps)
    whole, without = (
        {name: ds.copy(deep=True) for name, ds in work(block, work.read(block)).items()}
        for block in (
            Block(first=0, last=N, groups=lacking),
            Block(first=0, last=N, groups=lacking, bad=bad),
        )
    )
    others = np.arange(N) != farthest
    assert_same(
        {name: ds.isel(spectrum=others) for name, ds in whole.items()},
        {name: ds.isel(spectrum=others) for name, ds in without.items()},
    )
