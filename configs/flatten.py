"""Nested dicts as one list of dotted names: keys of a configuration, tensors of a checkpoint."""

from collections.abc import Iterator
from enum import Enum
from typing import Any


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of every entry of ``values`` that is no dict, in their order; a choice by its value."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value.value if isinstance(value, Enum) else value
