"""What a model reads of each event beside its item: raw values to codes and numbers, as in the store of its run.

T events.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from configs.schema.source import SourceConfig

MISSING, OTHER, FIRST_VALUE = 0, 1, 2
"""Codes of a category, as a store has them."""
LARGEST_NUMBER = 1e37
MAX_VALUE_BYTES = 1024
_MAX_WHOLE = 2**53
"""Beyond it neighbouring whole numbers are one float."""
Value = bool | int | float | str | None
"""As JSON has it."""
Codes = tuple[float, ...]
"""Of an event: a code or a number for each feature of the model, in the model's order."""


class WrongValueError(ValueError):
    """A value that the feature cannot have, with what it must be."""


class Feature:
    """One feature as ``model.json`` describes it; :class:`KeyError` and :class:`TypeError` where it does not."""

    def __init__(self, name: str, card: Mapping[str, Any]) -> None:
        self.name = name
        self.is_category: bool = card["type"] == "category"
        self.is_optional: bool = bool(card["num_missing"]) or card["fill"] != ""
        """Whether training knew events without it, or the store fills it; else a request must have it."""
        self._fill: str = card["fill"]
        self._filled_by, self._shift, self._scale = (float(card[key]) for key in ("filled_by", "shift", "scale"))
        self._code_of = {value: code for code, value in enumerate(card["vocabulary"], FIRST_VALUE)}
        self._num_buckets: int = card["max_values"] if card["encode"] == "hash" else 0
        words: Sequence[str] = card["missing_words"] if "missing_words" in card else SourceConfig().missing
        self._missing_words = frozenset(words)

    @property
    def dtype(self) -> type[np.generic]:
        """Of the program's input."""
        return np.int64 if self.is_category else np.float32

    def encoded(self, value: Value) -> float:
        """The code or number of a raw value, None for one that is missing. Raises :class:`WrongValueError`."""
        if self.is_category:
            return self._code(self._text_of(value))
        return self._number(_number_of(value))

    def encoded_column(self, raw: pa.Array) -> np.ndarray:
        """Of a store's raw values ``[T]``, which are cleaned already: int32 or float32, ``[T]``."""
        if self.is_category:
            values = pa.array(raw).dictionary_encode()
            codes = np.array([self._code(value) for value in values.dictionary.to_pylist()] or [MISSING], np.int32)
            index = values.indices.fill_null(0).to_numpy(zero_copy_only=False)
            is_missing = values.indices.is_null().to_numpy(zero_copy_only=False)
            return np.where(is_missing, np.int32(self._code(None)), codes[index])
        numbers = raw.fill_null(self._filled_by).to_numpy(zero_copy_only=False)
        return ((numbers - self._shift) / self._scale).astype(np.float32)

    def _text_of(self, value: Value) -> str | None:
        """As the readers of logs take a value for text; None where it is missing."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            is_whole = value.is_integer() and abs(value) <= _MAX_WHOLE
            value = str(int(value)) if is_whole else str(pl.Series([value]).cast(pl.String)[0])
        text = None if value is None else str(value)
        if text is None or not text.strip() or text.strip() in self._missing_words:
            return None
        if len(text.encode()) > MAX_VALUE_BYTES:
            raise WrongValueError(f"must have at most {MAX_VALUE_BYTES:,} bytes")
        return text

    def _code(self, text: str | None) -> int:
        filled = text if text is not None else self._fill or None
        if filled is None:
            return MISSING
        if self._num_buckets:
            digest = hashlib.blake2b(filled.encode(), digest_size=8).digest()
            return FIRST_VALUE + int.from_bytes(digest, "little") % self._num_buckets
        return self._code_of.get(filled, OTHER)

    def _number(self, value: float | None) -> float:
        found = ((self._filled_by if value is None else value) - self._shift) / self._scale
        if not abs(found) <= float(np.finfo(np.float32).max):
            raise WrongValueError("is too far from the numbers that the model was trained with")
        return found


class Features:
    """All features that a model reads of an event, in its order; it may be none."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._by_name = {feature.name: feature for feature in features}

    def __iter__(self) -> Iterator[Feature]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def read(self, given: Mapping[str, Value], *, others_allowed: bool = True) -> tuple[Codes, dict[str, str]]:
        """The codes of an event, in which what a feature cannot have counts as missing; and what is wrong with the
        features ``given``, by name. ``others_allowed``: there may be some that the model does not read."""
        encoded, wrong = dict[str, float](), dict[str, str]()
        for name, value in given.items():
            if name in self._by_name:
                try:
                    encoded[name] = self._by_name[name].encoded(value)
                except WrongValueError as error:
                    wrong[name] = str(error)
            elif not others_allowed:
                reads = f"reads {', '.join(self._by_name)}" if self._by_name else "reads none"
                wrong[name] = f"is no feature of this model, which {reads}"
        for name, feature in self._by_name.items():
            if given.get(name) is None and not feature.is_optional:
                wrong[name] = "is missing: the model reads it, and has learned from no event without it"
            if name not in encoded:
                encoded[name] = feature.encoded(None)
        return tuple(encoded[name] for name in self._by_name), wrong

    def codes_of(self, given: Mapping[str, Value]) -> Codes:
        """The codes of an event alone."""
        return self.read(given)[0]

    def codes_of_json(self, text: str | None) -> Codes:
        """The same of the text that :func:`features_as_json` gave."""
        return self.codes_of(json.loads(text) if text else {})

    def columns_of(self, codes: Sequence[Codes]) -> list[Sequence[float]]:
        """The values of each feature over events that have ``codes``."""
        return list(zip(*codes, strict=True)) if codes else [()] * len(self)


def features_as_json(given: Mapping[str, Value] | None) -> str | None:
    """What is kept of an event's features; None for none."""
    return json.dumps(given, separators=(",", ":"), allow_nan=False) if given else None


def features_of(card: Mapping[str, Any]) -> Features:
    """Of ``model.json``, in the order of the program's inputs. Raises :class:`KeyError`, :class:`TypeError` and
    :class:`ValueError` where they are not described."""
    prefix = "features."
    names = [each["name"] for each in card["program"]["inputs"] if each["name"].startswith(prefix)]
    found = [Feature(name, card["features"][name]) for name in (each.removeprefix(prefix) for each in names)]
    for feature in found:
        if not math.isfinite(feature.encoded(None)):
            raise ValueError(f"a finite number for a missing {feature.name}")
    return Features(found)


def _number_of(value: Value) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        raise WrongValueError("must be a number")
    if not abs(value) <= LARGEST_NUMBER:
        raise WrongValueError(f"must be a number of at most {LARGEST_NUMBER:g}")
    return float(value)
