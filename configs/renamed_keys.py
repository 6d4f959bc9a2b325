"""Keys of earlier versions, and what each is called now."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NewName:
    """The key that took the place of an old one, and by what an old value is multiplied to mean the same."""

    key: str
    factor: int = 1


RENAMED: Mapping[str, NewName] = {
    "data.num_lanes": NewName("data.num_data_shards"),
    "data.window_row_groups": NewName("data.shuffle_window_users", factor=1024),
    "guard.max_bad_steps": NewName("nonfinite.max_nonfinite_steps"),
    "guard.max_rollbacks": NewName("nonfinite.max_rollbacks"),
    "guard": NewName("nonfinite"),
}
"""Every key of an earlier version that has another name today."""


def new_name_of(key: str) -> str:
    """How to write what the old ``key`` said, for a message; empty for a key that was never renamed."""
    if key not in RENAMED and key.partition(".")[0] in RENAMED:
        group = key.partition(".")[0]
        return f"{group}.* is called {RENAMED[group].key}.* now; see docs/configuration.md"
    if key not in RENAMED:
        return ""
    new = RENAMED[key]
    times = f" with {new.factor:,} times the value" if new.factor != 1 else ""
    return f"it is called {new.key} now; write {new.key}{times}"


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values``, by dotted keys that an earlier version wrote, under the names and in the units of today."""
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        new = RENAMED.get(key, NewName(key))
        renamed[new.key] = value * new.factor if new.factor != 1 and isinstance(value, int) else value
    return renamed
