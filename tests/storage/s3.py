"""A service that speaks S3, on loopback, for the tests of stores in a bucket."""

import atexit
import functools
import logging
import secrets
import urllib.request

import pytest


@functools.cache
def service() -> str:
    """Its URL; it is started once and ends with the tests."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket as s3://..., reached by what is set in the environment."""
    url, name = service(), f"survey-{secrets.token_hex(4)}"
    for key in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_PROFILE", "AWS_ALLOW_HTTP"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
    request = urllib.request.Request(f"{url}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return f"s3://{name}"
