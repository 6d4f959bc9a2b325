"""Places that must not lie in one another: what a run, a store and a log are made of is never mixed."""

import os
from collections.abc import Mapping

from configs.errors import ConfigError
from configs.url import is_url

_SPILL = "data.spill_dir"
"""May hold anything: what a prepare keeps there has a folder of its own."""


def refuse_nested(places: Mapping[str, str]) -> None:
    """Raise :class:`ConfigError` where one of ``places``, paths or URLs by their keys, lies in another or is it.

    Links are followed; empty places do not count, and nothing lies in a glob.
    """
    found = {key: (place, _parts_of(place)) for key, place in places.items() if place}
    for key, (place, parts) in found.items():
        for outer_key, (outer, outer_parts) in found.items():
            if key == outer_key or parts[: len(outer_parts)] != outer_parts:
                continue
            if parts == outer_parts:
                raise ConfigError(f"{key}={place} and {outer_key}={outer} are one place; name two")
            if outer_key != _SPILL:
                raise ConfigError(f"{key}={place} is inside {outer_key}={outer}; name a place outside of it")


def _parts_of(place: str) -> tuple[str, ...]:
    if is_url(place) and not place.startswith("file://"):
        return tuple(place.rstrip("/").split("/"))
    return tuple(os.path.realpath(place.removeprefix("file://")).split("/"))
