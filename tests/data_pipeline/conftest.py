"""What the tests of object stores share."""

from collections.abc import Iterator

import pytest

from object_store import FaultyProxy, connect, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a real S3 server, the same for the tests of a file."""
    with s3_server() as port:
        yield port


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Before that server; what reads an ``s3://`` URL goes through it."""
    made = FaultyProxy(server)
    connect(monkeypatch, made.port)
    yield made
    made.close()
