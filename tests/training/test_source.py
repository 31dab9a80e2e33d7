"""A source gives rows, and what they should become where it has that."""

from typing import Any

import numpy as np
import pytest

from storage import schema
from storage.grid import Grid
from storage.store import Survey
from storage.writer import Writer, writing
from training.augment import Augment
from training.batches import Batches
from training.frame import Frame
from training.source import ArraySource, StoreSource

GRID = Grid(kind="linear", start=4000, step=2, size=100)
FRAME = Frame(name="t", grid=GRID, window=(4010, 4190), dust=None)
N = 30
FLUX = (np.arange(N, dtype="f4") + 1)[:, None] * np.ones(GRID.size, "f4")
TRUTH = FLUX + np.float32(0.5)


def put(writer: Writer, group: str, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    fork = writer.fork()
    fork.write_block(group, 0, arrays)
    writer.absorb([fork])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoreSource:
    """A store whose truth was written after the snapshot that is read."""
    path = str(tmp_path_factory.mktemp("survey") / "survey.icechunk")
    Survey.create(path)
    with writing(path, job="test") as writer:
        for config in ("toy", "bare"):
            group = f"spectra/{config}"
            template = schema.template(N, GRID)
            if config == "bare":
                template = template.drop_vars("model")
            writer.create_group(group, template, {"grid": GRID.model_dump()})
            writer.commit("make")
            pixels = {"flux": FLUX, "ivar": np.ones_like(FLUX)}
            put(writer, group, pixels if config == "bare" else pixels | {"model": TRUTH - 0.25})
            columns = {"z": np.zeros(N), "ebv": np.zeros(N, "f4")}
            columns["object_id"] = np.arange(N).astype("u8") // 3
            writer.write_columns(group, 0, columns)
            snapshot = writer.commit("ingest")
        fields = {"flux": schema.PIXELS["flux"], **schema.LEDGER}
        writer.create_group("truth/toy", schema.template(N, GRID, fields), {})
        writer.commit("make")
        put(writer, "truth/toy", {"flux": TRUTH})
        writer.commit("truth")
    return StoreSource(path=path, config="toy", snapshot=snapshot, chunk=10)


def bare(stored: StoreSource) -> StoreSource:
    return StoreSource(path=stored.path, config="bare", snapshot=stored.snapshot, chunk=10)


def arrays() -> ArraySource:
    ivar, none = np.ones_like(FLUX), np.zeros(N)
    return ArraySource(grid=GRID, arrays={"flux": FLUX, "ivar": ivar, "z": none, "ebv": none})


def batches(source: Any, **augment: Any) -> Batches:
    return Batches(
        source=source,
        rows=np.arange(N),
        frame=FRAME,
        batch_size=N,
        augment=Augment(**augment),
        shuffle=False,
    )


def test_the_truth_of_a_store_is_read_though_it_came_later(stored: StoreSource) -> None:
    np.testing.assert_array_equal(stored.exact("truth", 4, 9), TRUTH[4:9])
    np.testing.assert_array_equal(stored.exact("model", 4, 9), TRUTH[4:9] - 0.25)
    (batch,) = batches(stored, target="truth").epoch(0)
    assert batch.target is not None
    np.testing.assert_allclose(batch.target * batch.scale[:, None], TRUTH, rtol=1e-5)


def test_single_rows_come_in_the_order_that_was_asked(stored: StoreSource) -> None:
    rows = np.array([25, 3, 3, 17])
    for source in (stored, arrays()):
        found = source.pick(rows)
        np.testing.assert_array_equal(found["flux"], FLUX[rows])
        np.testing.assert_array_equal(found["ivar"], np.ones((4, GRID.size)))


def test_repeats_are_found_by_the_object(stored: StoreSource) -> None:
    (batch,) = batches(stored, target="repeat").epoch(0)
    # Object 0 is none: rows 0 to 2 have no identity.
    rows = np.arange(3, N)
    following = np.where(rows % 3 == 2, rows - 2, rows + 1)
    np.testing.assert_allclose(batch.scale, rows + 1)
    assert batch.target is not None
    np.testing.assert_allclose(batch.target * batch.scale[:, None], FLUX[following], rtol=1e-5)


def test_what_a_source_lacks_is_said_before_anything_is_learnt(stored: StoreSource) -> None:
    with pytest.raises(ValueError, match=r"no group 'truth/bare'.*`specmill simulate`.*'split'"):
        batches(bare(stored), target="truth")
    with pytest.raises(ValueError, match=r"spectra/bare has no variable 'model'.*another target"):
        batches(bare(stored), target="model")
    with pytest.raises(ValueError, match=r"'truth' of \[augment\] needs an array 'truth'.*flux,"):
        batches(arrays(), target="truth")
    with pytest.raises(ValueError, match="needs an array 'object_id'"):
        batches(arrays(), target="repeat")


def test_a_best_fit_that_is_nowhere_is_none() -> None:
    source = arrays()
    source.arrays["model"] = np.zeros_like(FLUX)
    with pytest.raises(ValueError, match=r"target 'model' of \[augment\] is 0 in all spectra"):
        batches(source, target="model")
    source.arrays["model"][-1] = 1
    assert len(batches(source, target="model")) == 1


def test_arrays_are_known_by_all_that_may_teach() -> None:
    before, source = arrays().identity, arrays()
    source.arrays["truth"] = TRUTH
    assert source.identity != before
    assert arrays().identity == before
