"""One card from simulate to report, by the command: whole, repeatable, and killed half-way."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ErrorKind
from pipeline.report import verdicts
from pipeline.stages import ORDER
from storage.schema import Status
from storage.store import Survey
from storage.writer import CHUNK_ROWS
from tests.pipeline.conftest import Finished
from tests.pipeline.runs import (
    BLOCKS,
    ROWS,
    card_of,
    contents,
    marked,
    rewind,
    specmill,
    store_of,
)

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(600)]

DIES = """
import os, signal
from storage.writer import Writer

commit = Writer.commit

def last(self, message, metadata=None):
    commit(self, message, metadata)
    if message.startswith("denoised/") and ": rows" in message:
        os.kill(os.getpid(), signal.SIGKILL)

Writer.commit = last
from pipeline.cli import main
main()
"""
"The command, which is killed when the first rows of a product are committed."


def product_of(path: str) -> str:
    return next(group for group in Survey.open(path).groups() if group.startswith("denoised/"))


def test_a_card_runs_from_simulate_to_report(finished: Finished) -> None:
    assert finished.status == 0
    run, survey = finished.folder / "run", Survey.open(store_of(finished.folder))
    assert [name for name in ORDER if f"{name}:" in finished.said] == list(ORDER)
    assert {survey.rows(group) for group in survey.groups()} == {ROWS}
    kinds = [group.split("/")[0] for group in survey.groups()]
    assert kinds == ["denoised", *["indices"] * 4, "spectra", "truth"]
    assert len(list(run.glob("checkpoints/*/verdict.json"))) == 3
    assert (run / "evaluate.json").is_file()
    assert 'src="http' not in (page := (run / "report" / "index.html").read_text())
    assert not re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(?:https?:)?//""", page)


def test_errors_on_the_product_are_those_of_the_checkpoints_table(finished: Finished) -> None:
    path = store_of(finished.folder)
    name = product_of(path).rpartition("/")[2]
    (group,) = (g for g in Survey.open(path).groups() if g == f"indices/sdss/{name}")
    ds = Survey.open(path).dataset(group)
    measured = np.isfinite(ds["value"].to_numpy())
    assert measured.mean() > 0.9
    calibrated = ds["error_kind"].to_numpy()[measured] == ErrorKind.CALIBRATED_DRAWS
    # Some are in bins of few mock spectra.
    assert calibrated.mean() > 0.9
    assert np.isfinite(ds["deshrunk"].to_numpy()[measured]).mean() > 0.9


def test_it_ends_with_the_table_and_where_things_are(finished: Finished) -> None:
    *_, report, store = finished.said.strip().splitlines()
    assert (finished.folder / report.split()[1]).is_file()
    assert (finished.folder / store.split()[1]).is_dir()
    table = finished.said[finished.said.index("On mock spectra") :]
    for word in ("ppca", "mean", "butterworth", "Dn4000", "HdeltaF", "Mgb", "fails"):
        assert word in table


def test_verdicts_are_right_even_on_so_little(finished: Finished) -> None:
    found = verdicts(card_of(finished.folder))
    assert not found["butterworth"].passed
    assert not found["mean"].passed
    assert found["butterworth"].reason.startswith("copies the noise")
    assert found["mean"].reason.startswith("paints the average galaxy")
    assert found["ppca"].score < found["mean"].score


def test_a_stage_closes_what_it_opened_before_the_next_begins(finished: Finished) -> None:
    assert finished.left == []
    assert {"ray"} in finished.owners
    assert {"dask"} in finished.owners
    assert {"ray", "dask"} not in finished.owners


def test_a_second_run_does_nothing_and_says_so(copy: Path) -> None:
    before = Survey.open(store_of(copy)).snapshot
    again = specmill(copy, "run", "card.toml")
    assert again.returncode == 0, again.stderr
    assert [f"{name}: nothing to do" in again.stdout for name in ORDER] == [True] * len(ORDER)
    assert Survey.open(store_of(copy)).snapshot == before


@pytest.mark.slow
def test_status_verify_and_history_of_a_store(finished: Finished) -> None:
    store, groups = store_of(finished.folder), Survey.open(store_of(finished.folder)).groups()
    said = specmill(finished.folder, "status", store)
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if re.search(r"\d+ +│? *\d+", line)]
    assert len(lines) == len(groups)
    verified = specmill(finished.folder, "verify", store)
    assert verified.returncode == 0, verified.stdout
    assert f"{len(groups)} groups, 0 findings" in verified.stdout
    versions = specmill(finished.folder, "history", store)
    assert versions.returncode == 0
    assert f"{product_of(store)} and others: rows" in versions.stdout


def test_what_a_query_writes_is_what_the_store_holds(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    said = specmill(
        finished.folder, "query", store_of(finished.folder), "snr_g > 10", "--out", str(out)
    )
    assert said.returncode == 0, said.stderr
    survey = Survey.open(store_of(finished.folder))
    spectra, name = survey.dataset("spectra/sdss"), product_of(survey.path).split("/")[-1]
    rows = (spectra["snr_g"] > 10).to_numpy()
    table = pd.read_parquet(out)
    assert f"{len(table)} spectra" in said.stdout
    np.testing.assert_array_equal(table["observation"], spectra["observation"].to_numpy()[rows])
    indices = survey.dataset(f"indices/sdss/{name}")
    expected = indices["value"].sel(index="Mgb").to_numpy()[rows]
    done = (indices["status"] == Status.DONE).to_numpy()[rows]
    np.testing.assert_array_equal(table["ppca.Mgb"], np.where(done, expected, np.nan))


def test_every_group_says_where_it_came_from_and_in_which_units(finished: Finished) -> None:
    survey = Survey.open(store_of(finished.folder))
    for group in survey.groups():
        about, ds = survey.attrs(group), survey.dataset(group)
        assert {"code_version", "packages", "platform"} <= set(about), group
        assert [n for n, v in ds.variables.items() if "units" not in v.attrs and v.ndim] == []
        if group.split("/")[0] in ("denoised", "indices"):
            assert about["card_digest"]
            assert Survey.open(survey.path, snapshot=about["input_snapshot"])
    about = survey.attrs(product_of(survey.path))
    assert about["checkpoint"].endswith(about["checkpoint_digest"][:8])
    assert about["verdict"].startswith("failed: ")


@pytest.mark.slow
def test_a_run_killed_in_denoise_goes_on_and_changes_no_bit(finished: Finished, copy: Path) -> None:
    store, group = store_of(copy), product_of(store_of(copy))
    rewind(copy, group)
    mark = secrets.token_hex(8)
    killed = subprocess.run(
        [sys.executable, "-c", DIES, "run", "card.toml"],
        cwd=copy,
        env={**os.environ, "SPECMILL_TEST": mark},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = (Survey.open(store).dataset(group)["status"] != Status.PENDING).to_numpy()
    assert 0 < done.sum() <= CHUNK_ROWS < ROWS
    assert Path(f"{store}.lease").exists()
    again = specmill(copy, "run", "card.toml")
    assert again.returncode == 0, again.stderr
    assert "took over from dead process" in again.stderr
    assert f"{ROWS - done.sum()} now" in again.stdout
    assert not Path(f"{store}.lease").exists()
    undisturbed = store_of(finished.folder)
    assert Survey.open(store).groups() == Survey.open(undisturbed).groups()
    for name in Survey.open(store).groups():
        assert contents(store, name) == contents(undisturbed, name), name
    deadline = time.monotonic() + 30
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [" ".join(process.cmdline()) for process in marked(mark)] == []


def test_the_small_run_has_several_blocks(finished: Finished) -> None:
    """Or a kill half-way would mean nothing."""
    group = product_of(store_of(finished.folder))
    versions = Survey.open(store_of(finished.folder)).history()
    assert sum(v.message.startswith(f"{group} and others: rows") for v in versions) == BLOCKS
