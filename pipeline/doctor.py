"""Doctor: what this machine can do, and the place of a store, before a survey is given to it."""

import importlib.util
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import icechunk
import psutil

from deploy.job import cores
from pipeline.disk import PROBE, Check, folder_checks
from storage.holder import Holder
from storage.place import exists, is_bucket, location
from storage.provenance import PACKAGES, provenance
from storage.slot import slot
from storage.store import Survey

__all__ = ["Check", "examine"]

ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ALLOW_HTTP",
    "PYTHONPATH",
    "SLURM_JOB_ID",
    "TMPDIR",
)
_SIZE_S = 5.0
"How long the files of a store are counted."
_VERSIONS = 500
"Of a store with more it is not looked which chunks they use."
_REACH = (OSError, ValueError, ImportError, icechunk.IcechunkError)


def examine(path: str) -> list[Check]:
    """Look at the machine, at the file system or bucket of a path, and at the store if it is one.

    Things are tried in a folder, or at a key, of their own, which is removed: nothing is left, and
    a store is only read.

    Parameters
    ----------
    path : str
        A store, a folder, or where one is to be made; or s3://bucket/prefix/name.icechunk.
    """
    found = [*_machine(), *_environment()]
    if is_bucket(path):
        found += _bucket(path)
    else:
        found += folder_checks(_folder(Path(path).absolute()))
    return [*found, *_store(path)]


def _folder(path: Path) -> Path:
    """Where things are tried: never inside a store; above what is not there yet."""
    inside = [p for p in (path, *path.parents) if p.suffix == ".icechunk"]
    path = inside[-1].parent if inside else path
    return next(p for p in (path, *path.parents) if p.is_dir())


def _machine() -> Iterator[Check]:
    used, there = cores(), os.cpu_count() or 1
    share = cpu_share()
    said = f"{used} of {there}" + (f", of which {share:g} at a time" if share else "")
    tight = share is not None and share < used
    cure = "set cluster.workers and cluster.threads by what the container may use" if tight else ""
    yield Check(name="cores", level="warn" if tight else "ok", found=said, cure=cure)
    total, limit = psutil.virtual_memory().total, memory_limit()
    memory = min(total, limit or total)
    said = f"{memory / 1e9:.1f} GB" + (f" (limit of {total / 1e9:.1f})" if memory < total else "")
    little = memory < 4e9
    cure = "a worker wants 2 GB; take fewer" if little else ""
    yield Check(name="memory", level="warn" if little else "ok", found=said, cure=cure)
    yield _cuda()
    versions = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    found = f"{provenance()['platform']}; {', '.join(versions)}"
    yield Check(name="python", level="ok", found=found)


def _cuda() -> Check:
    if importlib.util.find_spec("torch") is None:
        cure = "pip install torch, to train and to denoise"
        return Check(name="cuda", level="warn", found="PyTorch is not installed", cure=cure)
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        found = f"none (PyTorch is for CUDA {built})" if built else "none (PyTorch is for the CPU)"
        return Check(name="cuda", level="ok", found=found)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check(name="cuda", level="ok", found=f"{len(names)}: {', '.join(names)}")


def _environment() -> Iterator[Check]:
    for name in ENVIRONMENT:
        value = os.environ.get(name)
        if value is None:
            continue
        many = name.endswith("_NUM_THREADS") and value.isdigit() and int(value) > cores()
        cure = f"more than the {cores()} cores at hand: unset it" if many else ""
        if name == "PYTHONPATH":
            cure = "modules there go before the installed ones: unset it, if it is not meant"
        level = "warn" if cure else "ok"
        yield Check(name=name, level=level, found=_without_password(value), cure=cure)  # type: ignore[arg-type]  # a Literal
    if "AWS_ACCESS_KEY_ID" in os.environ:
        yield Check(name="AWS_ACCESS_KEY_ID", level="ok", found="set")


def _without_password(value: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(value)
        if parts.password or parts.username:
            return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()
    return value


def cpu_share(root: str = "/sys/fs/cgroup") -> float | None:
    """Cores' worth of time that the container may use; None without a limit."""
    for folder in _control_groups(root):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            return int(quota) / int(period)
    return None


def memory_limit(root: str = "/sys/fs/cgroup") -> int | None:
    """Bytes that the container may use, by its control group; None without a limit."""
    limits = []
    for folder in _control_groups(root):
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min(limits, default=None)


def _control_groups(root: str) -> Iterator[Path]:
    """The control group of this process, and those above it."""
    own = ""
    with suppress(OSError, IndexError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "")
    folder = Path(root) / own.strip("/")
    yield from (f for f in (folder, *folder.parents) if f.is_relative_to(root) and f.is_dir())


def _bucket(path: str) -> Iterator[Check]:
    """Whether a bucket answers, and refuses a second writer."""
    begin = time.monotonic()
    try:
        probe = slot(f"{path.rstrip('/')}{PROBE}{secrets.token_hex(8)}")
        made = probe.create("one")
    except _REACH as error:
        cure = "see AWS_ENDPOINT_URL, AWS_REGION and AWS_ACCESS_KEY_ID"
        yield Check(name="bucket", level="fail", found=str(error), cure=cure)
        return
    try:
        seconds = time.monotonic() - begin
        yield Check(
            name="bucket",
            level="ok" if made else "fail",
            found=f"a small object is written in {1000 * seconds:.0f} ms",
        )
        yield _conditional(probe)
    finally:
        if (left := probe.read()) is not None:
            probe.remove(left)


def _conditional(probe: object) -> Check:
    """Whether a put is refused when the object is there, or is not what it was."""
    cure = "this service cannot keep two writers apart: use one with conditional puts"
    name = "conditional put"
    try:
        before = probe.read()  # type: ignore[attr-defined]
        second = probe.create("two")  # type: ignore[attr-defined]
        renewed = probe.renew(before, "three")  # type: ignore[attr-defined]
        stale = probe.renew(before, "four")  # type: ignore[attr-defined]
    except _REACH as error:
        return Check(name=name, level="fail", found=str(error), cure=cure)
    if second or stale:
        return Check(
            name=name, level="fail", found="a put was not refused as it must be", cure=cure
        )
    if not renewed:
        return Check(name=name, level="fail", found="a put was refused that was ours", cure=cure)
    return Check(name=name, level="ok", found="a second writer is refused")


def _store(path: str) -> Iterator[Check]:
    try:
        if not exists(path):
            return
        yield _lease(path)
        versions = len(Survey.open(path).history())
        yield Check(name="versions", level="ok", found=f"{versions} of {path}")
        if not is_bucket(path):
            yield from _files(Path(path), versions)
    except ValueError as error:
        if not path.rstrip("/").endswith(".icechunk"):
            return
        yield Check(name="store", level="fail", found=str(error), cure="run `specmill verify`")
    except (OSError, icechunk.IcechunkError) as error:
        yield Check(name="store", level="fail", found=str(error), cure="run `specmill verify`")


def _lease(path: str) -> Check:
    held = slot(path).read()
    if held is None:
        return Check(name="lease", level="ok", found="nobody writes")
    try:
        holder = Holder.parse(json.loads(held.text))
    except (TypeError, ValueError) as error:
        cure = f"remove {path}.lease if nobody writes"
        return Check(name="lease", level="fail", found=f"not a lease ({error})", cure=cure)
    if holder.is_dead():
        cure = "nothing: the next run takes it over"
        return Check(
            name="lease", level="warn", found=f"left by a dead process: {holder}", cure=cure
        )
    me = Holder.me("")
    seen = (me.host, me.boot, me.space) == (holder.host, holder.boot, holder.space)
    said = (
        "that process is alive" if seen else "whether that process is alive is not seen from here"
    )
    cure = "wait for it; reading is free"
    return Check(name="lease", level="warn", found=f"{holder} writes: {said}", cure=cure)


def _files(store: Path, versions: int) -> Iterator[Check]:
    end, total, count, whole = time.monotonic() + _SIZE_S, 0, 0, True
    for folder, _, names in os.walk(store):
        for name in names:
            with suppress(OSError):
                total += (Path(folder) / name).stat().st_size
                count += 1
        if time.monotonic() > end:
            whole = False
            break
    least = "" if whole else "at least "
    yield Check(name="size", level="ok", found=f"{least}{total / 1e9:.3f} GB in {count} files")
    if whole and versions <= _VERSIONS:
        yield from _unused(store)
    beside = sorted(
        file.name
        for start in (f"{store.name}.lease.", ".partial-", PROBE)
        for file in store.parent.glob(f"{start}*")
    )
    if beside:
        cure = "remove them, if no run is under way"
        yield Check(name="leftovers", level="warn", found=", ".join(beside), cure=cure)
    else:
        yield Check(name="leftovers", level="ok", found="none beside the store")


def _unused(store: Path) -> Iterator[Check]:
    """Chunks of no version: of runs that were broken off."""
    repository = icechunk.Repository.open(location(str(store)))
    used = int(repository.chunk_storage_stats().native_bytes)
    files = (store / "chunks").glob("*") if (store / "chunks").is_dir() else ()
    there = sum(file.stat().st_size for file in files)
    unused = max(0, there - used)
    found = f"{unused / 1e9:.3f} GB of chunks belong to no version"
    cure = "nothing: a run that was broken off left them, and they do no harm"
    much = unused > 0.1 * max(there, 1)
    yield Check(
        name="unused", level="warn" if much else "ok", found=found, cure=cure if much else ""
    )
