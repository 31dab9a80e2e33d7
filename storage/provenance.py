"""Where a product came from: what every group and checkpoint carries."""

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("specmill", "numpy", "torch", "xarray", "zarr", "icechunk", "astropy")
_HOUSE = Path(__file__).resolve().parents[1]


@cache
def code_version() -> str:
    """Version of specmill and a digest of its source, so that an edited checkout shows."""
    digest = hashlib.blake2b(digest_size=4)
    for folder in ("storage", "training", "pipeline", "deploy"):
        for file in sorted((_HOUSE / folder).rglob("*.py")):
            digest.update(file.relative_to(_HOUSE).as_posix().encode() + file.read_bytes())
    return f"{version('specmill')}+{digest.hexdigest()}"


@cache
def provenance() -> dict[str, str]:
    """Attributes that say which code, packages and machine kind wrote something."""
    packages = " ".join(f"{name}={version(name)}" for name in PACKAGES)
    return {
        "code_version": code_version(),
        "packages": packages,
        "platform": f"{platform.machine()} python-{platform.python_version()}",
    }
