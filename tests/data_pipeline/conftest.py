"""What the tests of object stores share."""

from object_store import proxy, server

__all__ = ["proxy", "server"]
