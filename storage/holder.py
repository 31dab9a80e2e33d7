"""Who holds a lease, and whether that process is provably gone.

No clock is asked: it may be stepped. A process is its number and its start in clock ticks since
boot; a boot is the kernel's random id. What another kernel runs cannot be seen from here.
"""

import os
import secrets
import socket
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil

INITIAL = "pid:[4026531836]"
"The process namespace of a Linux machine itself; a container has another."


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who writes to a store."""

    host: str
    "Host name."
    machine: str
    "/etc/machine-id; empty where there is none."
    boot: str
    "The kernel's id of this boot; empty where it has none."
    space: str
    "The process namespace: which processes are seen; empty where there are none."
    pid: int
    "Process id in that namespace."
    started: str
    "When that process started, in ticks since boot: a pid alone is used again."
    job: str
    "What it does, in words."
    nonce: str
    "A secret of this lease."
    renewed: str
    "ISO time of the last commit, for people: clocks differ."
    queue: str = ""
    "Cluster and number of its Slurm job; empty elsewhere."
    restart: int = 0
    "How often Slurm had started that job again."

    @classmethod
    def me(cls, job: str) -> Self:
        """This process."""
        return cls(
            **_here(),
            pid=os.getpid(),
            started=_start(os.getpid()) or "",
            job=job,
            nonce=secrets.token_hex(8),
            renewed=_now(),
            queue=_queued(),
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        )

    @classmethod
    def parse(cls, values: Any) -> Self:
        """The holder of a lease as it was written.

        Raises
        ------
        TypeError
            When a field is missing, unknown or of another type.
        """
        found = cls(**values)
        for name, value in asdict(found).items():
            if not isinstance(value, int if name in ("pid", "restart") else str):
                raise TypeError(f"{name} is {value!r}")
        if found.pid < 1:
            raise TypeError(f"pid is {found.pid}")
        return found

    def renew(self) -> Self:
        """The same, seen now."""
        return replace(self, renewed=_now())

    def __str__(self) -> str:
        return f"{self.job} (pid {self.pid} on {self.host}, last seen {self.renewed})"

    def is_dead(self) -> bool:
        """Whether the process is provably gone.

        On the same machine, since the same boot and in the same process namespace, its number
        tells. A machine that was booted again since, and is no container, runs none of its old
        processes. A Slurm job that was started again has lost its former self: Slurm does that when
        a node was lost or needed. Of anything else nothing is proven: another machine, or a
        container, whose id and name may come from its image.
        """
        again = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if self.queue and self.queue == _queued() and self.restart < again:
            return True
        here = _here()
        if any(here[name] != getattr(self, name) for name in ("host", "machine", "space")):
            return False
        if self.boot == here["boot"]:
            return _is_gone(self.pid, self.started)
        return bool(self.machine and self.boot and here["boot"] and self.space == INITIAL)


def _here() -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "machine": _text("/etc/machine-id"),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "space": _link("/proc/self/ns/pid"),
    }


def _queued() -> str:
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"{os.environ.get('SLURM_CLUSTER_NAME', '')}/{job}" if job else ""


def _text(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""


def _link(file: str) -> str:
    try:
        return str(Path(file).readlink())
    except OSError:
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_gone(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # Somebody else's process: if it is not the holder, its start says so.
        pass
    found = _start(pid)
    return found is not None and found != started


def _start(pid: int) -> str | None:
    """When a process started; empty for a zombie, None when it cannot be seen."""
    if not sys.platform.startswith("linux"):
        try:
            return str(psutil.Process(pid).create_time())
        except psutil.Error:
            return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in brackets, may hold brackets and spaces itself.
    state, *fields = stat.rpartition(")")[2].split()
    # A zombie writes no more; its parent has only not asked for its exit status yet.
    return "" if state in "ZX" else fields[18]
