"""A card whose store lies in a bucket: the same run, the same products, byte for byte."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.extract import export_store
from pipeline.plain import import_zarr
from pipeline.query import open_survey
from pipeline.stages import ORDER
from pipeline.verify import verify
from storage.place import objects
from storage.schema import Status
from storage.store import Survey
from tests.pipeline import surveys
from tests.pipeline.conftest import Finished
from tests.pipeline.runs import ROWS, contents, specmill, store_of
from tests.storage import s3

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("obstore")
    return s3.bucket(monkeypatch)


@pytest.fixture
def store(bucket: str) -> str:
    return f"{bucket}/dr1/survey.icechunk"


def keys(store: str) -> set[str]:
    return {found["path"] for batch in objects(store).list() for found in batch}


@pytest.mark.slow
def test_files_are_ingested_into_a_bucket_by_the_command_and_asked_for(
    store: str, tmp_path: Path
) -> None:
    files = surveys.write(tmp_path / "files", 4)
    surveys.truncate(files[1])
    (tmp_path / "card.toml").write_text(
        f"[run]\ndir = 'run'\n[survey]\nroot = 'files'\nstore = '{store}'\n[cluster]\nworkers = 2\n"
    )
    done = specmill(tmp_path, "ingest", "card.toml")
    assert done.returncode == 1, done.stderr
    assert "3 done, 1 quarantined" in done.stdout
    assert list(verify(store, root=str(tmp_path / "files"))) == []
    chosen = open_survey(store).spectra.select("status == 1")
    assert chosen.sizes["spectrum"] == 3
    # Nothing of the store lies on the disk, and nothing but the store in the bucket.
    assert list(tmp_path.rglob("*.icechunk*")) == []
    assert {key.split("/")[1] for key in keys(store)} == {"survey.icechunk"}


@pytest.mark.slow
def test_a_run_on_a_bucket_makes_what_a_run_on_a_folder_makes(
    finished: Finished, store: str, tmp_path: Path
) -> None:
    folder = copied_without_store(finished.folder, tmp_path / "copy")
    retrained = folder / "run" / "checkpoints" / checkpoint_of(folder, "mean")
    expected = {file.name: file.read_bytes() for file in weights(retrained)}
    shutil.rmtree(retrained)
    setting = ("--set", f"survey.store={store}")
    done = specmill(folder, "run", "card.toml", *setting)
    assert done.returncode == 0, done.stderr
    # One model was trained again, by Ray's workers, from the bucket.
    assert expected == {file.name: file.read_bytes() for file in weights(retrained)}
    here = store_of(finished.folder)
    assert Survey.open(store).groups() == Survey.open(here).groups()
    for group in Survey.open(store).groups():
        assert contents(store, group) == contents(here, group), group
    again = specmill(folder, "run", "card.toml", *setting)
    assert [f"{name}: nothing to do" in again.stdout for name in ORDER] == [True] * len(ORDER)
    assert list(tmp_path.rglob("*.icechunk*")) == []
    verbs_of_a_store(folder, store)
    exported(folder, store, here)


def verbs_of_a_store(folder: Path, store: str) -> None:
    for verb in ("status", "history", "doctor"):
        done = specmill(folder, verb, store)
        assert done.returncode == 0, done.stderr
    verified = specmill(folder, "verify", store, "--files", "run/survey")
    assert "groups, 0 findings" in verified.stdout
    newest = Survey.open(store).snapshot
    assert f"dr1: {newest}" in specmill(folder, "tag", store, "dr1").stdout
    told = specmill(folder, "expire", store, "--days", "0", "--dry-run")
    freed = specmill(folder, "expire", store, "--days", "0")
    assert told.returncode == freed.returncode == 0, freed.stderr
    assert told.stdout.split(":")[1] == freed.stdout.split(":")[1]
    survey = Survey.open(store)
    named = [survey.attrs(group).get("input_snapshot") for group in survey.groups()]
    for snapshot in filter(None, named):
        assert Survey.open(store, snapshot=snapshot)
    assert "groups, 0 findings" in specmill(folder, "verify", store).stdout


def exported(folder: Path, store: str, here: str) -> None:
    where = "snr_g > 10"
    done = specmill(folder, "export", store, "there.parquet", "--where", where)
    assert done.returncode == 0, done.stderr
    export_store(here, folder / "here.parquet", where)
    there, expected = (pd.read_parquet(folder / f"{name}.parquet") for name in ("there", "here"))
    pd.testing.assert_frame_equal(there, expected)
    assert 0 < len(there) < ROWS
    export_store(store, folder / "there.zarr", where)
    back = f"{store.removesuffix('survey.icechunk')}again.icechunk"
    import_zarr(str(folder / "there.zarr"), back)
    spectra = Survey.open(back).dataset("spectra/sdss")
    assert (spectra["status"] == Status.DONE).sum() == len(there)
    np.testing.assert_array_equal(spectra["observation"].to_numpy(), there["observation"])


def copied_without_store(run: Path, target: Path) -> Path:
    return Path(shutil.copytree(run, target, ignore=shutil.ignore_patterns("*.icechunk*")))


def checkpoint_of(folder: Path, name: str) -> str:
    (found,) = (folder / "run" / "checkpoints").glob(f"{name}-????????")
    return found.name


def weights(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.rglob("*.safetensors"))
