"""Workers of a Dask scheduler that runs already, whoever started it; it stays when we go.

[cluster]
backend = "scheduler"
address = "tls://node7:8786"
certificates = "/home/me/dask-keys"
"""

import ipaddress
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from distributed import Client, Security

from deploy import certificates
from deploy.job import Job, Resources, script
from deploy.machine import background

logger = logging.getLogger(__name__)

ANSWER_S = 30
"Time for the scheduler to answer."


def render(job: Job) -> str:
    """A bash script: the command runs here, its tasks there."""
    return script(job)


def submit(job: Job) -> str:
    """Start the job in the background, out of reach of the terminal's Ctrl-C; gives its pid."""
    return background(job, render(job))


@contextmanager
def cluster(resources: Resources, folder: Path | None = None) -> Iterator[Client]:
    """The workers of that scheduler, as they are: how many, and of which memory, is its affair.

    Raises
    ------
    ValueError
        When there is no address, or tasks would travel open to others.
    FileNotFoundError
        When certificates are missing.
    RuntimeError
        When nobody answers, or certificates differ.
    """
    security = _security(resources)
    try:
        client = Client(resources.address, security=security, timeout=ANSWER_S)
    except OSError as error:
        raise RuntimeError(
            f"cluster.address: no scheduler that knows these certificates answers at "
            f"{resources.address} within {ANSWER_S} s ({error})"
        ) from error
    with client:
        if not client.nthreads():
            logger.warning("%s has no workers yet; tasks wait for them", resources.address)
        yield client


def _security(resources: Resources) -> Security | None:
    if not resources.address:
        raise ValueError(
            "cluster.address: the backend scheduler needs one, as tls://host:port; "
            "`dask scheduler` says its own"
        )
    url = urlsplit(resources.address)
    if url.scheme == "tls":
        if not resources.certificates:
            raise ValueError(
                f"cluster.certificates: {resources.address} needs the folder of ca.pem, cert.pem "
                "and key.pem"
            )
        return certificates.known(Path(resources.certificates))
    if not _is_loopback(url.hostname or ""):
        raise ValueError(
            f"cluster.address: {resources.address} is open: whoever reaches it may run any code as "
            "you; start the scheduler with --protocol tls and certificates, or on 127.0.0.1"
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
