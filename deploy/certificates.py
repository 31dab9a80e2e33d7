"""Certificates: what a scheduler, its workers and its client know one another by.

A folder with ca.pem, cert.pem and key.pem. Whoever has the key may have any code run.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Security

FILES = {"tls_ca_file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


def known(folder: Path) -> Security:
    """The certificates of a folder, for every part.

    Raises
    ------
    FileNotFoundError
        When one of the three is missing; names them.
    """
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"cluster.certificates: {folder} has no {', '.join(missing)}; it takes "
            f"{', '.join(FILES.values())} that the scheduler and its workers use too"
        )
    roles = {
        f"tls_{role}_{part}": str(folder / FILES[part])
        for role in ("client", "scheduler", "worker")
        for part in ("cert", "key")
    }
    return Security(
        require_encryption=True, tls_ca_file=str(folder / FILES["tls_ca_file"]), **roles
    )


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A folder of certificates that are good as long as the context; only its owner may look in.

    Raises
    ------
    ImportError
        When cryptography is not installed; names the extra.
    """
    try:
        made = Security.temporary()
    except ImportError as error:
        raise ImportError(
            "workers over TLS need cryptography: pip install -e '.[slurm]'"
        ) from error
    own = folder / f"tls-{secrets.token_hex(8)}"
    own.mkdir(mode=0o700, parents=True)
    try:
        for name, text in {
            "ca.pem": made.tls_ca_file,
            "cert.pem": made.tls_scheduler_cert,
            "key.pem": made.tls_scheduler_key,
        }.items():
            # Private before there is anything in it, whatever the umask.
            (own / name).touch(mode=0o600)
            (own / name).write_text(text)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
