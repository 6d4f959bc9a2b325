"""Reads what is typed as ``key=value``: a text means itself, and what cannot be read is told by its key."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from configs.choices import CHOICES, PRESETS, names_of
from configs.errors import ConfigError
from configs.renamed_keys import new_name_of

NEW_KEYS = ("data.features.", "data.item_features.")
"""Below them a user gives names of his own, as the third part of a key."""

AUTO_KEYS = ("hardware.num_ranks", "hardware.num_threads", "data.memory_gib")
"""Numbers that the machine gives where they are 0, or typed as ``auto``."""

_OWNERS = {
    "prepare": "prepare's keys are under `data.`, such as data.memory_gib and data.engine",
    "batch": "a batch by tokens is data.global_batch_tokens",
    "cluster": "cluster's keys are those of `shardrec launch`",
    "serve": "serve's keys are those of `shardrec serve`",
}
"""Where the keys are that a user looks for in a group of another name."""

_QUOTED = re.compile(r"""(['"])(\\.|(?!\1)[^\\])*\1""", flags=re.DOTALL)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_MARKS = ("'", '"')
_PLAIN = r"""[^\s,'"\[\]{}()$][^,'"\[\]{}()$]*"""
_ONE = rf"""(?:\s*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|{_PLAIN})\s*)"""
_ELEMENT = re.compile(_ONE)
_LIST = re.compile(rf"\[({_ONE}(?:,{_ONE})*)\]", flags=re.DOTALL)
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def read_overrides(overrides: Sequence[str], schema: type) -> list[Override]:
    """``overrides`` of the keys of ``schema``, parsed; ``input_line`` of each is what Hydra takes for it.

    The value of a text's key is itself, whatever its characters, but for ``${...}``, which Hydra resolves; a
    backslash before it keeps it as it is. Within quotes it is their inside, and a backslash before one of
    ``\\()[]{}:=,`` or a blank goes, as in Hydra.
    Raises :class:`ConfigError`, which names the override, for what is no key of ``schema`` or no single value.
    """
    parser = OverridesParser.create()
    return [_read(plain_key(each), schema, parser) for each in overrides]


def unknown_key(key: str, schema: type) -> ConfigError:
    """Says that ``key`` is none of ``schema``, or none of the variant that was chosen, and where to look."""
    types, group = _types_of(schema), key.partition(".")[0]
    if _general(key) in types:
        hint = f"another {group}=NAME has it"
    elif renamed := new_name_of(key):
        hint = renamed
    elif group in _OWNERS and group not in types:
        hint = _OWNERS[group]
    elif close := get_close_matches(_general(key), _alike(_general(key), types), n=1):
        hint = f"did you mean {close[0].replace('*', ''.join(key.split('.')[2:3]))}?"
    else:
        hint = "every key: " + ("docs/configuration.md" if group in ("cluster", "serve") else "`shardrec config`")
    return ConfigError(f"unknown key {key}; {hint}")


def literal(text: str) -> str:
    """``text`` so that OmegaConf, which would look up ``${...}`` in it, gives it back as it is."""
    return _INTERPOLATION.sub(lambda found: found[1] * 2 + r"\${", text)


def _alike(key: str, known: Iterable[str]) -> list[str]:
    """Those of ``known`` whose parts are like those of ``key``, each one: a common group alone is no likeness."""
    parts = key.split(".")
    split = [each.split(".") for each in known if each.count(".") == key.count(".")]
    return [".".join(each) for each in split if all(map(get_close_matches, parts, ([part] for part in each)))]


def plain_key(override: str) -> str:
    """``+data.features.price.type=number`` without the plus, allowed where a key is new; another is refused."""
    key = override.lstrip("+")
    if key.startswith(NEW_KEYS):
        return key
    if override.startswith(("+", "~", "hydra.", "hydra/")):
        raise ConfigError(f"{override}: every key of a run exists already; write key=value without + or ~")
    return override


def key_of(override: str) -> str:
    """The key of ``key=value`` or ``+key=value``."""
    return override.partition("=")[0].lstrip("+")


def as_typed(value: Any) -> str:
    """How a user types ``value`` so that it is read as itself."""
    match value:
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case list():
            return f"[{','.join(_quoted(literal(each)) if isinstance(each, str) else str(each) for each in value)}]"
        case str():
            text = literal(value)
            is_itself = not _QUOTED.fullmatch(text.strip()) and not _ESCAPED.search(text)
            return text if is_itself else _quoted(text)
    return str(value)


def _read(override: str, schema: type, parser: OverridesParser) -> Override:
    key, equals, value = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"{override}: write KEY=VALUE")
    types = types_of_key(key, schema)
    try:
        parsed = parser.parse_override(f"{key}={_hydra_value(key, value, types, parser)}")
    except (HydraException, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{_shown(override)}: cannot be read; {_advice(key, types)}") from error
    if parsed.is_sweep_override():
        raise ConfigError(f"{_shown(override)}: not one value; {_advice(key, types)}")
    if not is_group(key) and not _fits(parsed.value(), types):
        raise ConfigError(f"{_shown(override)}: {key} takes {_words_for(types)}")
    return parsed


def types_of_key(key: str, schema: type) -> list[Any]:
    """The types that the value of ``key`` may have; raises :class:`ConfigError` for a key that is not there."""
    types = _types_of(schema).get(_general(key))
    if types is None:
        raise unknown_key(key, schema)
    return types


def is_group(key: str) -> bool:
    """Whether ``key`` chooses among names, such as ``loss``."""
    return key == PRESETS or key in CHOICES


def _shown(override: str) -> str:
    """``override``, cut where nobody would read on, and by its key alone where its value may be a secret."""
    if override.startswith("cluster.environment="):
        return "cluster.environment"
    return override if len(override) <= 200 else f"{override[:200]}..."


def _advice(key: str, types: list[Any]) -> str:
    if any(get_origin(each) is list for each in types):
        return f"write a list as {key}=['a','b'], between quotes of the shell"
    return f"{key} takes one plain value"


def _fits(value: Any, types: list[Any]) -> bool:
    """Whether ``value`` may be of one of ``types``; what refers to another key is looked at when it is resolved."""
    kinds = [get_origin(each) or each for each in types]
    refers = isinstance(value, str) and "${" in value and list not in kinds and not _has_keys(types)
    if not types or str in types or Any in types or refers:
        return True
    match value:
        case bool():
            return bool in kinds
        case int():
            return int in kinds or float in kinds or (bool in kinds and value in (0, 1))
        case float():
            return float in kinds
        case list():
            is_plain = not any(each is None or isinstance(each, list | dict) for each in value)
            return list in kinds and is_plain and (list[int] not in types or all(type(each) is int for each in value))
        case dict():
            return _has_keys(types)
        case None:
            return False
    return any(_is_enum(each) for each in kinds)


def _has_keys(types: list[Any]) -> bool:
    return any(get_origin(each) is dict or dataclasses.is_dataclass(each) for each in types)


def _words_for(types: list[Any]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", list: "a list such as [a,b]"}
    words |= {list: "whole numbers, such as 7 or [1,7]"} if list[int] in types else {}
    kinds = [get_origin(each) or each for each in types]
    return " or ".join(dict.fromkeys(words.get(each, "a group: set the keys below it") for each in kinds))


def _hydra_value(key: str, value: str, types: list[Any], parser: OverridesParser) -> str:
    if is_group(key):
        return _name(key, value)
    if value == "auto" and key in AUTO_KEYS:
        return "0"
    if str in types:
        return _quoted(_text_of(value, parser))
    if list[str] in types:
        return _list_of_text(value)
    if list[int] in types and value.strip().isdecimal():
        return f"[{value.strip()}]"
    members = {str(member.value): member.name for each in types if _is_enum(each) for member in each}
    if members and "${" not in value and value not in members and value not in members.values():
        raise ConfigError(f"{key}={_shown(value)} is unknown; set it to one of {', '.join(members)}")
    return members.get(value, value)  # OmegaConf knows the members of an enum by name only


def _name(group: str, value: str) -> str:
    """The name that is chosen, in quotes: one that looks like a number is a name as well."""
    if not _NAME.fullmatch(value) or value.lower() == "null" or len(value) > 200:
        own = "; for a file of your own add --config-dir=FOLDER" if "/" in value else ""
        raise ConfigError(f"{group}={_shown(value)}: {group} takes one name, such as {names_of(group)[0]}{own}")
    return _quoted(value)


def _quoted(text: str) -> str:
    return str(QuotedString(text, Quote.single).with_quotes())


def _text_of(value: str, parser: OverridesParser) -> str:
    if _QUOTED.fullmatch(value.strip()):
        return str(parser.parse_rule(value.strip(), "primitive").text)
    return _ESCAPED.sub(r"\1", value)


def _list_of_text(value: str) -> str:
    """``value`` with quotes around its plain elements, which Hydra would read as numbers, booleans or null."""
    inside = _LIST.fullmatch(value.strip())
    if inside is None:
        return value
    parts = [part.strip() for part in _ELEMENT.findall(inside[1])]
    texts = [part if part[0] in _MARKS else _quoted(_ESCAPED.sub(r"\1", part)) for part in parts]
    return f"[{','.join(texts)}]"


def _general(key: str) -> str:
    """``data.features.price.type`` -> ``data.features.*.type``."""
    for start in NEW_KEYS:
        key = re.sub(rf"^{re.escape(start)}[^.]*", f"{start}*", key)
    return key


@cache
def _types_of(schema: type) -> dict[str, list[Any]]:
    """The types of each key: variants, such as those of ``cluster``, may disagree. ``*`` is a name in a dict."""
    types: dict[str, list[Any]] = {PRESETS: []}  # a name
    for key, hint in _keys_of(schema, ""):
        types.setdefault(key, []).append(hint)
    return types


def _keys_of(schema: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(schema).items():
        yield prefix + name, hint
        if get_origin(hint) is dict:
            yield f"{prefix}{name}.*", get_args(hint)[1]
            yield from _keys_of(get_args(hint)[1], f"{prefix}{name}.*.")
        for variant in _variants(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else ():
            yield from _keys_of(variant, f"{prefix}{name}.")


def _variants(schema: type[Any]) -> list[type[Any]]:
    return [schema, *(variant for child in schema.__subclasses__() for variant in _variants(child))]


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)
