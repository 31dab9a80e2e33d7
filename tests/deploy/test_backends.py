"""Every module on the shelf of clusters: its contract, and the scripts it renders."""

import importlib
import inspect
import os
import pkgutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import deploy.backends
from deploy.backend import Backend
from deploy.backends import slurm
from deploy.job import Job, Resources

GOLDEN = Path(__file__).parent / "golden"
SHELF = sorted(module.name for module in pkgutil.iter_modules(deploy.backends.__path__))
JOB = Job(
    name="dr17-denoise",
    command=("specmill", "denoise", "my card.toml", "--set", "run.dir='a run'"),
    resources=Resources(
        workers=8,
        threads=4,
        memory="3GiB",
        walltime="1-12:00:00",
        gpus=1,
        partition="long",
        account="survey",
    ),
    env={"SPECMILL_DATA": "/data/it's here"},
    folder=Path("runs/my run"),
)


@pytest.fixture(params=SHELF)
def backend(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"deploy.backends.{request.param}")


@pytest.mark.parametrize("verb", ["render", "submit", "cluster"])
def test_a_backend_has_the_functions_of_the_contract(backend: ModuleType, verb: str) -> None:
    expected = list(inspect.signature(getattr(Backend, verb)).parameters)[1:]

    assert list(inspect.signature(getattr(backend, verb)).parameters) == expected


def test_a_rendered_script_is_the_one_that_was_read_and_approved(backend: ModuleType) -> None:
    golden = GOLDEN / f"{backend.__name__.rpartition('.')[2]}.sh"

    assert backend.render(JOB) == golden.read_text(encoding="utf-8")


def test_bash_parses_a_rendered_script(backend: ModuleType) -> None:
    run = subprocess.run(["bash", "-n"], input=backend.render(JOB), text=True, check=False)

    assert run.returncode == 0


def test_a_rendered_script_keeps_strangers_out_of_the_imports(backend: ModuleType) -> None:
    assert "\nexport PYTHONSAFEPATH=1\n" in backend.render(JOB)


def test_rendering_touches_nothing(backend: ModuleType, tmp_path: Path) -> None:
    backend.render(JOB.model_copy(update={"folder": tmp_path / "run"}))

    assert not list(tmp_path.iterdir())


def test_slurm_gets_the_memory_of_the_workers_and_of_what_starts_them() -> None:
    memory_mib = 8 * 3 * 1024 + slurm.COORDINATOR_BYTES // 2**20

    assert f"#SBATCH --mem={memory_mib}M\n" in slurm.render(JOB)


def test_a_job_of_several_nodes_asks_for_its_workers_as_tasks() -> None:
    wide = {"nodes": 3, "requeue": False, "gpus": 0, "grace_s": 300}
    job = JOB.model_copy(update={"resources": JOB.resources.model_copy(update=wide)})

    assert slurm.render(job) == (GOLDEN / "slurm-nodes.sh").read_text(encoding="utf-8")


def test_slurm_is_not_told_what_was_not_asked() -> None:
    script = slurm.render(JOB.model_copy(update={"resources": Resources()}))

    for option in ("partition", "account", "gpus"):
        assert option not in script


def test_submitting_without_sbatch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(RuntimeError, match=r"no sbatch on PATH: .* --dry-run"):
        slurm.submit(JOB.model_copy(update={"folder": tmp_path}))


def test_submitting_gives_the_id_and_leaves_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = JOB.model_copy(update={"folder": tmp_path / "run"})
    _sbatch(tmp_path, 'echo "4711;mercury"', monkeypatch)

    assert slurm.submit(job) == "4711"
    assert (tmp_path / "run/jobs/dr17-denoise.sh").read_text() == slurm.render(job)
    assert (tmp_path / "run/logs").is_dir()


def test_what_sbatch_refuses_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sbatch(tmp_path, "echo 'invalid partition specified: long' >&2; exit 1", monkeypatch)

    with pytest.raises(RuntimeError, match=r"sbatch refuses .*\.sh: invalid partition"):
        slurm.submit(JOB.model_copy(update={"folder": tmp_path / "run"}))


def test_a_job_waits_for_the_one_before_it_and_never_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = JOB.model_copy(update={"folder": tmp_path / "run"})
    _sbatch(tmp_path, f'echo "$@" >>{tmp_path}/said; echo 8', monkeypatch)
    for after in ("", "7"):
        slurm.submit(job.model_copy(update={"after": after}))
    path = tmp_path / "run/jobs/dr17-denoise.sh"
    said = (tmp_path / "said").read_text()
    assert said == f"--parsable {path}\n--parsable --dependency=afterok:7 {path}\n"


def test_an_answer_that_is_no_id_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sbatch(tmp_path, "true", monkeypatch)
    with pytest.raises(RuntimeError, match=r"sbatch gave no job id for .*\.sh, but ''"):
        slurm.submit(JOB.model_copy(update={"folder": tmp_path / "run"}))


def test_a_worker_job_of_slurm_is_one_that_was_asked_for(tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue.slurm", reason="needs the extra 'slurm'")
    options = slurm.worker_options(JOB.resources, tmp_path)

    del options["shared_temp_directory"], options["scheduler_options"], options["security"]
    script = jobqueue.SLURMJob("tls://192.0.2.1:8786", name="w", **options).job_script()

    for line in (
        "#SBATCH -p long",
        "#SBATCH -A survey",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=3G",
        "#SBATCH -t 1-12:00:00",
        "#SBATCH --gpus=1",
        "export PYTHONSAFEPATH=1",
        "export OMP_NUM_THREADS=4",
    ):
        assert f"{line}\n" in script


def test_workers_on_slurm_refuse_a_folder_that_would_not_be_quoted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without spaces"):
        slurm.worker_options(JOB.resources, tmp_path / "my run")


def _sbatch(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for sbatch on PATH."""
    path = folder / "sbatch"
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
