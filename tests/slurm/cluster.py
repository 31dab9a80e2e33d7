"""A Slurm cluster of its own on this machine: virtual nodes on loopback, gone with the context.

Its configuration, its keys and its spool lie in one folder, and its ports are free ones, so that a
Slurm that is installed for work is neither asked nor touched.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "setpriv")
CONFIGURATION = """\
ClusterName=specmill
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
DefMemPerCPU=100
ReturnToService=2
KillWait=5
MinJobAge=300
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_NODE = (
    "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=4096 "
    "State=UNKNOWN"
)


def missing() -> str:
    """Why there can be no cluster here; empty when there can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacks = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"no {', '.join(lacks)} here (Debian: slurm-wlm, munge)" if lacks else ""


@contextmanager
def cluster(folder: Path, nodes: int = 2) -> Iterator[dict[str, str]]:
    """Daemons of a cluster that is ready; gives the environment that its commands want."""
    port, *ports = _free_ports(nodes + 1)
    host = socket.gethostname().partition(".")[0]
    lines = [_NODE.format(n=n, host=host, port=p) for n, p in enumerate(ports, 1)]
    (folder / "state").mkdir(parents=True)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(folder=folder, host=host, port=port, nodes="\n".join(lines))
    )
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    here = {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    munge = (f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed"))
    with ExitStack() as stack:
        socket_ = f"--socket={folder}/munge.socket"
        _start(stack, folder, ["munged", "--foreground", "--force", socket_, *munge], here)
        until((folder / "munge.socket").exists, 20)
        _start(stack, folder, ["slurmctld", "-D"], here)
        for n in range(1, nodes + 1):
            _start(stack, folder, ["slurmd", "-D", "-N", f"n{n}"], here)
        until(lambda: _said(["sinfo", "-h", "-o", "%T"], here).split() == ["idle"], 60)
        stack.callback(_empty, here)
        yield here


def until(done: Callable[[], object], timeout_s: float = 120) -> None:
    """Wait for something to be true."""
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout_s} s: {done}")
        time.sleep(0.2)


def _start(stack: ExitStack, folder: Path, command: Sequence[str], here: dict[str, str]) -> None:
    """A daemon that ends with the stack, and with this process however that ends."""
    log = stack.enter_context((folder / f"{Path(command[-1]).name}.said").open("w"))
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        env=os.environ | here,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    stack.callback(_stop, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _empty(here: dict[str, str]) -> None:
    """No job outlives its cluster."""
    jobs = _said(["squeue", "-h", "-o", "%i"], here).split()
    if jobs:
        subprocess.run(["scancel", *jobs], env=os.environ | here, check=False)
        until(lambda: not _said(["squeue", "-h", "-o", "%i"], here).split(), 60)


def _said(command: Sequence[str], here: dict[str, str]) -> str:
    return subprocess.run(
        command, env=os.environ | here, capture_output=True, text=True, check=False
    ).stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
