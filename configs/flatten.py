"""Nested dicts as one list of dotted names: keys of a configuration, tensors of a checkpoint."""

from collections.abc import Collection, Iterator
from enum import Enum
from typing import Any


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of every entry of ``values`` that is no dict, in their order; a choice by its value."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value.value if isinstance(value, Enum) else value


def is_among(key: str, keys: Collection[str]) -> bool:
    """Whether ``key`` is one of ``keys``, or is below one of them, as ``data.log`` is below ``data``."""
    return any(key == each or key.startswith(f"{each}.") for each in keys)
