"""The error of a file that lacks a column, in the words of the keys that a person sets."""

import re

from configs.errors import DataError
from data_pipeline.store.paths import AnyPath

_MOST_NAMES = 40


def missing_column(path: AnyPath, key: str, name: str, there: list[str]) -> DataError:
    """The error of a file that has no column ``name``, which the config's ``key`` asks for, but ``there``."""
    shown = ", ".join(there[:_MOST_NAMES]) + (f" and {len(there) - _MOST_NAMES} more" if there[_MOST_NAMES:] else "")
    there = [re.sub(r"_duplicated_\d+$", "", each) for each in there]
    if there and all(_is_number(each) for each in there):
        names = ",".join(_names_for(there, name))
        return DataError(
            f"{path} has no column {name!r} ({config_key(key)}), nor a header: its first line is {', '.join(there)}; "
            f"name its columns in order, such as data.source.header=[{names}]"
        )
    if there and there[0].startswith("#"):
        return DataError(
            f"{path} has no column {name!r} ({config_key(key)}): it begins with a comment, {there[0][:60]!r}; "
            f"remove the lines before the header"
        )
    also = _separator_in(there)
    if key == "timestamp":
        also += ", or to nothing where the order of the rows is the order of the events"
    elif any("\ufffd" in each for each in there):
        also += "; they are no UTF-8: set data.source.encoding, such as latin-1"
    return DataError(
        f"{path} has no column {name!r} ({config_key(key)}); its columns are {shown}; "
        f"set {config_key(key)} to one of them{also}"
    )


def _separator_in(there: list[str]) -> str:
    """What helps where one name holds all names of a header."""
    names = {";": ";", "\t": "tab", "|": "|", ":": "::", " ": "whitespace"}
    found = next((name for mark, name in names.items() if len(there) == 1 and mark in there[0]), "")
    return f", or data.source.separator={found!r} if that is what stands between the columns" if found else ""


def config_key(key: str) -> str:
    """What a user sets to name the column that is ours as ``key``."""
    return f"data.{key}.column" if key.startswith("features.") else f"data.columns.{key}"


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", text))


def _names_for(there: list[str], first: str) -> list[str]:
    """A name for each column of a file that names none."""
    known = [first, "item_id", "timestamp"]
    return [*known[: len(there)], *(f"column_{number}" for number in range(len(known) + 1, len(there) + 1))]
