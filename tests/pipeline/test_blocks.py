"""The engine: every block once, in whole chunks, resumable, whatever happens to a worker."""

import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from deploy.backends import local
from deploy.job import Resources
from pipeline import blocks
from pipeline.block import Block, BlockError, Target
from storage import schema
from storage.grid import Grid
from storage.provenance import provenance
from storage.schema import LEDGER, PIXELS, Field, Reason, Status
from storage.store import Survey
from storage.writer import Writer, writing

pytestmark = pytest.mark.cluster

GRID = Grid(kind="linear", start=4000, step=1, size=30)
ROWS, CHUNK = 70, 8
X = "spectra/x"
FIELDS: dict[str, Field] = {
    "flux": PIXELS["flux"],
    "z": schema.COLUMNS["z"],
    "reason": schema.COLUMNS["reason"],
    **LEDGER,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with local.cluster(Resources(workers=2), tmp_path_factory.mktemp("workers")) as found:
        yield found


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = str(tmp_path / "survey.icechunk")
    Survey.create(found)
    with writing(found, "test") as writer:
        shape = schema.template(ROWS, GRID, FIELDS)
        writer.create_group("spectra/x", shape, {**provenance()}, chunk_rows=CHUNK)
        writer.commit("room")
    return found


@dataclass(frozen=True)
class Squares:
    """Row r holds r^2; dies or fails at rows when told to, once or always."""

    folder: str = ""
    fail_at: tuple[int, ...] = ()
    kill_at: tuple[int, ...] = ()
    unreadable: tuple[int, ...] = ()
    together: int = ROWS
    once: bool = False

    def read(self, block: Block) -> np.ndarray:
        rows = np.arange(block.first, block.last)
        chunks = {row // CHUNK for row in rows[~block.is_bad]}
        if chunks & {row // CHUNK for row in self.unreadable}:
            raise ValueError("checksum")
        return rows

    def spent(self, held: np.ndarray) -> dict[str, float]:
        return {X: 0.5}

    def __call__(self, block: Block, rows: np.ndarray) -> xr.Dataset:
        touched = set(rows[~block.is_bad])
        marker = Path(self.folder) / "struck"
        if touched & set(self.kill_at) and not (self.once and marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if touched & set(self.fail_at) or len(touched) > self.together:
            raise ValueError("this block is bad")
        rows = np.where(block.is_bad, 0, rows)
        flux = np.broadcast_to((rows[:, None] ** 2).astype("f4"), (len(rows), GRID.size))
        return xr.Dataset(
            {
                "flux": (("spectrum", "wavelength"), flux),
                "z": ("spectrum", rows / 100),
                "reason": ("spectrum", np.full(len(rows), "", np.dtypes.StringDType())),
                "status": ("spectrum", np.full(len(rows), Status.DONE, "u1")),
                "reason_code": ("spectrum", np.zeros(len(rows), "u2")),
            }
        )


def target(writer: Writer, chunk: int = CHUNK, **more: int) -> Target:
    return Target(writer=writer, groups=(X,), chunk_rows=chunk, block_chunks=2, **more)


def snapshot(path: str) -> dict[str, bytes]:
    ds = Survey.open(path).dataset("spectra/x")
    return {str(name): ds[name].to_numpy().tobytes() for name in ds.variables}


def assert_complete(path: str, bad: Collection[int] = (), code: Reason = Reason.FAILED) -> None:
    ds = Survey.open(path).dataset("spectra/x").load()
    out = np.isin(np.arange(ROWS), list(bad))
    expected = np.where(out, 0, np.arange(ROWS))
    np.testing.assert_array_equal(ds["flux"][:, 0], expected.astype("f4") ** 2)
    np.testing.assert_array_equal(ds["z"], expected / 100)
    np.testing.assert_array_equal(ds["status"], np.where(out, Status.QUARANTINED, Status.DONE))
    np.testing.assert_array_equal(ds["reason_code"], np.where(out, code, Reason.NONE))
    assert ((ds["reason"].to_numpy() != "") == out).all()


def test_every_row_is_there_once_and_a_second_run_does_nothing(path: str, client: Client) -> None:
    with writing(path, "test") as writer:
        tally = blocks.run(Squares(), target=target(writer, commit_blocks=2), client=client)[X]
        assert tally.rows[Status.DONE] == tally.computed == ROWS
        commits = len(Survey.open(path).history())
        again = blocks.run(Squares(), target=target(writer), client=client)[X]
    assert_complete(path)
    assert again.computed == 0
    assert "nothing to do" in str(again)
    assert len(Survey.open(path).history()) == commits


@dataclass(frozen=True)
class Hidden(Squares):
    """As its parent, but one variable is a coordinate."""

    def __call__(self, block: Block, rows: np.ndarray) -> xr.Dataset:
        return super().__call__(block, rows).set_coords("z")


def test_a_variable_that_would_not_be_written_is_an_error(path: str, client: Client) -> None:
    with writing(path, "test") as writer, pytest.raises(BlockError, match="z would not be written"):
        blocks.run(Hidden(), target=target(writer), client=client)


def test_a_killed_worker_changes_no_bit(path: str, client: Client, tmp_path: Path) -> None:
    with writing(path, "test") as writer:
        make = Squares(folder=str(tmp_path), kill_at=(20,), once=True)
        tally = blocks.run(make, target=target(writer, commit_blocks=1), client=client)[X]
    assert (tmp_path / "struck").exists()
    assert tally.computed == ROWS
    assert_complete(path)


def test_what_was_done_before_an_error_stays_and_the_rest_is_finished_later(
    path: str, client: Client
) -> None:
    # More than half of the last chunks: no spectrum's fault.
    wrong = Squares(fail_at=tuple(range(48, ROWS)))
    with writing(path, "test") as writer:
        with pytest.raises(BlockError, match=r"spectra/x: rows \d+:\d+: this block is bad"):
            blocks.run(wrong, target=target(writer, commit_blocks=1, chunk=24), client=client)
        before = int((Survey.open(path).dataset("spectra/x")["status"] == Status.DONE).sum())
        assert 0 < before < ROWS
        rest = blocks.run(Squares(), target=target(writer), client=client)[X]
    assert rest.computed >= ROWS - before
    assert_complete(path)


@pytest.mark.parametrize(
    ("make", "bad", "code"),
    [
        (Squares(fail_at=(3,)), {3}, Reason.FAILED),
        (Squares(fail_at=(3, 15, 69)), {3, 15, 69}, Reason.FAILED),
        (Squares(unreadable=(18,)), set(range(16, 24)), Reason.STORE_DAMAGED),
    ],
)
def test_rows_that_fail_are_quarantined_and_the_run_goes_on(
    make: Squares, bad: set[int], code: Reason, path: str, client: Client
) -> None:
    with writing(path, "test") as writer:
        tally = blocks.run(make, target=target(writer), client=client)[X]
    assert tally.rows[Status.QUARANTINED] == tally.reasons[code] == len(bad)
    assert_complete(path, bad, code)


def test_a_row_that_always_kills_its_worker_is_quarantined_and_the_run_goes_on(
    path: str, client: Client, tmp_path: Path
) -> None:
    make = Squares(folder=str(tmp_path), kill_at=(21,))
    with writing(path, "test") as writer:
        tally = blocks.run(make, target=target(writer), client=client)[X]
    assert tally.rows[Status.QUARANTINED] == 1
    assert_complete(path, {21})
    assert "whoever computes it dies" in Survey.open(path).dataset(X)["reason"].to_numpy()[21]
    # Workers may die again as often as Dask allows.
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 3


def test_rows_that_fail_only_together_are_no_spectrum_s_fault(path: str, client: Client) -> None:
    with (
        writing(path, "test") as writer,
        pytest.raises(BlockError, match="together, but not apart"),
    ):
        blocks.run(Squares(together=9), target=target(writer), client=client)
    assert (Survey.open(path).dataset(X)["status"] == Status.PENDING).any()


def test_many_bad_blocks_are_a_bad_run(path: str, client: Client) -> None:
    make = Squares(fail_at=tuple(range(0, ROWS, 4)))
    with writing(path, "test") as writer:
        small = Target(writer=writer, groups=(X,), chunk_rows=4)
        with pytest.raises(BlockError, match="this block is bad"):
            blocks.run(make, target=small, client=client)


def test_the_bytes_do_not_depend_on_the_size_of_the_blocks(
    path: str, tmp_path: Path, client: Client
) -> None:
    with writing(path, "test") as writer:
        blocks.run(Squares(), target=target(writer), client=client)
    first = snapshot(path)
    with writing(path, "test") as writer:
        writer.write_columns("spectra/x", 0, {"status": np.zeros(ROWS, "u1")})
        writer.commit("again")
        whole = Target(writer=writer, groups=("spectra/x",), chunk_rows=CHUNK, block_chunks=9)
        blocks.run(Squares(), target=whole, client=client)
    assert snapshot(path) == first


def test_a_chunk_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(MemoryError, match="512 rows x 1000000 bytes needs 8 x that = 4096000000"):
        blocks.block_chunks(3000, 512, 1_000_000, 1 << 30, 2)


@pytest.mark.parametrize(
    ("rows", "workers", "expected"), [(3000, 2, 2), (3000, 1, 2), (100, 8, 1), (10**6, 2, 4)]
)
def test_blocks_give_every_worker_two_or_more_and_fit_in_memory(
    rows: int, workers: int, expected: int
) -> None:
    # 2 GiB / 8 holds five chunks of 512 rows of 100 kB, so four; fewer where there are few rows.
    assert blocks.block_chunks(rows, 512, 100_000, 2 << 30, workers) == expected
