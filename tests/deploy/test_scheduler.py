"""A scheduler that runs already: known by its certificates, or refused."""

import itertools
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from distributed import Client, LocalCluster

from deploy import certificates
from deploy.backends import scheduler, srun
from deploy.job import Job, Resources

TASKS = range(-3, 0)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with certificates.temporary(tmp_path_factory.mktemp("keys")) as folder:
        yield folder


@pytest.fixture(scope="module")
def running(keys: Path) -> Iterator[str]:
    """Address of a scheduler with one worker, over TLS."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tls://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=certificates.known(keys),
    ) as cluster:
        yield cluster.scheduler_address


def test_only_their_owner_may_look_into_certificates(keys: Path) -> None:
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()}
    assert modes == dict.fromkeys(("ca.pem", "cert.pem", "key.pem"), 0o600)


def test_certificates_go_with_their_run(tmp_path: Path) -> None:
    with certificates.temporary(tmp_path / "run") as folder:
        assert folder.is_dir()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.cluster
def test_workers_elsewhere_do_what_they_are_given_and_stay(running: str, keys: Path) -> None:
    resources = Resources(address=running, certificates=str(keys))
    for _ in range(2):
        with scheduler.cluster(resources) as client:
            assert client.gather(client.map(abs, TASKS, pure=False)) == [3, 2, 1]


@pytest.mark.cluster
def test_who_has_no_certificate_is_not_let_in(running: str) -> None:
    with pytest.raises(OSError):
        Client(running.replace("tls://", "tcp://"), timeout=1)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    url = urlsplit(running)
    with (
        socket.create_connection((url.hostname, url.port), timeout=10) as door,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake.failure"),
        stranger.wrap_socket(door) as inside,
    ):
        # With TLS 1.3 the refusal comes when the door is through.
        inside.recv(1)


@pytest.mark.cluster
def test_who_has_another_certificate_is_told_so(
    running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "ANSWER_S", 2)
    with (
        certificates.temporary(tmp_path) as others,
        pytest.raises(RuntimeError, match=rf"knows these certificates answers at {running}"),
        scheduler.cluster(Resources(address=running, certificates=str(others))),
    ):
        pass


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, r"cluster\.address: the backend scheduler needs one"),
        ({"address": "tcp://node7:8786"}, r"tcp://node7:8786 is open: whoever reaches it may run"),
        ({"address": "tcp://192.0.2.7:8786"}, r"is open"),
        ({"address": "tls://node7:8786"}, r"cluster\.certificates: .* needs the folder of ca\.pem"),
        (
            {"address": "tls://node7:8786", "certificates": "gone"},
            r"gone has no ca\.pem, cert\.pem",
        ),
    ],
)
def test_an_unsafe_or_unknown_scheduler_is_refused(given: dict[str, str], expected: str) -> None:
    with (
        pytest.raises((ValueError, FileNotFoundError), match=expected),
        scheduler.cluster(Resources(**given)),
    ):
        pass


def test_srun_is_refused_outside_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with (
        pytest.raises(RuntimeError, match=r"inside a job of Slurm, and this is none"),
        srun.cluster(Resources()),
    ):
        pass


def test_srun_asks_for_its_workers_as_tasks_with_their_certificates() -> None:
    resources = Resources(workers=5, nodes=2, threads=4, memory="2GiB", gpus=1, interface="ib0")
    words = srun.command(resources, "tls://n1:8786", Path("/run/tls-1"), Path("/run"))
    ours, dask = words[: words.index("-m")], words[words.index("-m") :]
    assert {"--nodes=2", "--ntasks=5", "--ntasks-per-node=3", "--cpus-per-task=4"} <= set(ours)
    assert "--gpus-per-task=1" in ours
    assert dask[1:3] == ["distributed.cli.dask_worker", "tls://n1:8786"]
    said = dict(itertools.pairwise(dask))
    assert said["--tls-key"] == "/run/tls-1/key.pem"
    assert said["--memory-limit"] == f"{2 * 2**30}B"
    assert said["--nthreads"] == "1"
    assert said["--interface"] == "ib0"


def test_srun_queues_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"submit with --backend slurm"):
        srun.submit(Job(name="x", command=("true",), folder=tmp_path))
