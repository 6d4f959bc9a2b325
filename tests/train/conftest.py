"""What the tests of training share."""

import pytest

from object_store import proxy, server
from prepared_store import synthetic_store

__all__ = ["proxy", "server", "store"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small store, the same for the tests of a file."""
    return synthetic_store(tmp_path_factory.mktemp("log"))
