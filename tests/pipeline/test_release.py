"""A release: its products can be made again from its tag, to the bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from pipeline import product as products
from pipeline import release, stage
from pipeline.card import Card
from pipeline.passes import run
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import card_of, factors, ingested, save

pytestmark = pytest.mark.cluster

N = 80


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    for kept in (products.loaded, products._outputs, stage.reading):
        kept.cache_clear()


@pytest.fixture
def card(tmp_path: Path, client: Client) -> Card:
    save(tmp_path, "factors", factors(ingested(tmp_path, N)))
    save(tmp_path, "filter")
    found = card_of(tmp_path, {"where": "z < 0.08", "model": "factors"}, {"model": "filter"})
    run(found, client)
    return found


def test_a_release_is_made_again_to_the_bit_though_the_survey_went_on(
    card: Card, client: Client, tmp_path: Path
) -> None:
    release.publish(card, "dr1")
    other = card_of(tmp_path, {"model": "filter"})
    run(other, client)
    found = release.prove(card.store, "dr1", client)
    assert found.different == {}
    assert found.rows == N
    assert found.arrays > 30
    assert found.machine == ""
    assert release.card_of(card.store, "dr1").denoise == card.denoise


def test_a_value_that_is_not_what_the_models_make_is_found(card: Card, client: Client) -> None:
    survey = Survey.open(card.store)
    (group,) = (g for g in survey.groups() if g.startswith("indices/sdss/filter"))
    value = survey.dataset(group)["value"].to_numpy()
    value[7:9] = np.nextafter(value[7:9], np.inf)
    with writing(card.store, "test") as writer:
        writer.write_columns(group, 0, {"value": np.nan_to_num(value)})
        writer.commit("touched")
    release.publish(card, "dr1")
    found = release.prove(card.store, "dr1", client)
    assert set(found.different) == {f"{group}/value"}
    assert found.different[f"{group}/value"] >= 2


def test_what_is_not_whole_is_no_release(card: Card) -> None:
    stale = Card.model_validate({**card.model_dump(mode="json"), "measure": {"draws": 20}})
    with pytest.raises(ValueError, match=r"draws: 16 -> 20.*a release is whole"):
        release.publish(stale, "dr1")


def test_a_checkpoint_that_moved_is_asked_for(card: Card, client: Client, tmp_path: Path) -> None:
    release.publish(card, "dr1")
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"a checkpoint of the release; --checkpoints DIR"):
        release.prove(card.store, "dr1", client)
    there = str(tmp_path / "elsewhere")
    assert release.prove(card.store, "dr1", client, checkpoints=there, rows=30).rows == 30


def test_a_tag_that_is_no_release_says_so(card: Card) -> None:
    from storage import versions

    versions.tag(card.store, "plain")
    with pytest.raises(ValueError, match="'plain' is no release; `specmill release CARD NAME`"):
        release.card_of(card.store, "plain")
