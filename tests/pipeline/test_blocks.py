"""The engine: every block once, in whole chunks, resumable, whatever happens to a worker."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client, KilledWorker

from deploy.backends import local
from deploy.job import Resources
from pipeline import blocks
from pipeline.blocks import Block, BlockError, Target
from storage import schema
from storage.grid import Grid
from storage.provenance import provenance
from storage.schema import LEDGER, PIXELS, Field, Status
from storage.store import Survey
from storage.writer import Writer, writing

pytestmark = pytest.mark.cluster

GRID = Grid(kind="linear", start=4000, step=1, size=30)
ROWS, CHUNK = 70, 8
FIELDS: dict[str, Field] = {"flux": PIXELS["flux"], "z": schema.COLUMNS["z"], **LEDGER}


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
    """Row r holds r^2; dies or fails once at a row when told to."""

    folder: str = ""
    fail_at: int = -1
    kill_at: int = -1
    always: bool = False

    def __call__(self, block: Block) -> xr.Dataset:
        rows = np.arange(block.first, block.last)
        marker = Path(self.folder) / "struck"
        if self.kill_at in rows and (self.always or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail_at in rows:
            raise ValueError("this block is bad")
        flux = np.broadcast_to((rows[:, None] ** 2).astype("f4"), (len(rows), GRID.size))
        done = np.full(len(rows), Status.DONE, "u1")
        return xr.Dataset(
            {
                "flux": (("spectrum", "wavelength"), flux),
                "z": ("spectrum", rows / 100),
                "status": ("spectrum", done),
                "reason_code": ("spectrum", np.zeros(len(rows), "u2")),
            }
        )


def target(writer: Writer, **more: int) -> Target:
    return Target(writer=writer, group="spectra/x", chunk_rows=CHUNK, block_chunks=2, **more)


def snapshot(path: str) -> dict[str, bytes]:
    ds = Survey.open(path).dataset("spectra/x")
    return {str(name): ds[name].to_numpy().tobytes() for name in ds.variables}


def assert_complete(path: str) -> None:
    ds = Survey.open(path).dataset("spectra/x").load()
    np.testing.assert_array_equal(ds["flux"][:, 0], np.arange(ROWS, dtype="f4") ** 2)
    np.testing.assert_array_equal(ds["z"], np.arange(ROWS) / 100)
    assert (ds["status"] == Status.DONE).all()


def test_every_row_is_there_once_and_a_second_run_does_nothing(path: str, client: Client) -> None:
    with writing(path, "test") as writer:
        tally = blocks.run(Squares(), target=target(writer, commit_blocks=2), client=client)
        assert tally.rows[Status.DONE] == tally.computed == ROWS
        commits = len(Survey.open(path).history())
        again = blocks.run(Squares(), target=target(writer), client=client)
    assert_complete(path)
    assert again.computed == 0
    assert "nothing to do" in str(again)
    assert len(Survey.open(path).history()) == commits


@dataclass(frozen=True)
class Hidden(Squares):
    """As its parent, but one variable is a coordinate."""

    def __call__(self, block: Block) -> xr.Dataset:
        return super().__call__(block).set_coords("z")


def test_a_variable_that_would_not_be_written_is_an_error(path: str, client: Client) -> None:
    with writing(path, "test") as writer, pytest.raises(BlockError, match="z would not be written"):
        blocks.run(Hidden(), target=target(writer), client=client)


def test_a_killed_worker_changes_no_bit(path: str, client: Client, tmp_path: Path) -> None:
    with writing(path, "test") as writer:
        make = Squares(folder=str(tmp_path), kill_at=20)
        tally = blocks.run(make, target=target(writer, commit_blocks=1), client=client)
    assert (tmp_path / "struck").exists()
    assert tally.computed == ROWS
    assert_complete(path)


def test_what_was_done_before_an_error_stays_and_the_rest_is_finished_later(
    path: str, client: Client
) -> None:
    with writing(path, "test") as writer:
        with pytest.raises(BlockError, match=r"spectra/x: rows \d+:70: this block is bad"):
            blocks.run(
                Squares(fail_at=ROWS - 1), target=target(writer, commit_blocks=1), client=client
            )
        before = int((Survey.open(path).dataset("spectra/x")["status"] == Status.DONE).sum())
        assert 0 < before < ROWS
        rest = blocks.run(Squares(), target=target(writer), client=client)
    assert rest.computed == ROWS - before
    assert_complete(path)


def test_a_block_that_always_kills_its_worker_ends_the_run_with_an_error(
    path: str, client: Client, tmp_path: Path
) -> None:
    make = Squares(folder=str(tmp_path), kill_at=0, always=True)
    with writing(path, "test") as writer, pytest.raises(KilledWorker):
        blocks.run(make, target=target(writer), client=client)
    assert not (Survey.open(path).dataset("spectra/x")["status"] == Status.DONE)[0]


def test_the_bytes_do_not_depend_on_the_size_of_the_blocks(
    path: str, tmp_path: Path, client: Client
) -> None:
    with writing(path, "test") as writer:
        blocks.run(Squares(), target=target(writer), client=client)
    first = snapshot(path)
    with writing(path, "test") as writer:
        writer.write_columns("spectra/x", 0, {"status": np.zeros(ROWS, "u1")})
        writer.commit("again")
        whole = Target(writer=writer, group="spectra/x", chunk_rows=CHUNK, block_chunks=9)
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
