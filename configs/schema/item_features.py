"""What is kept of an item beside its id: columns of the file ``data.items``, and how they are cleaned."""

from dataclasses import dataclass
from enum import Enum

from configs.bounds import check_bounds
from configs.errors import ConfigError, require
from configs.schema.features import (
    Encode,
    FeatureConfig,
    FeatureType,
    Normalise,
    check_feature_keys,
    check_feature_name,
)


class ItemFeatureType(str, Enum):
    """What the values of an item's feature are."""

    CATEGORY = "category"
    CATEGORIES = "categories"
    """Any number of categories an item: a list, or a text with a separator between them."""
    NUMBER = "number"
    TEXT = "text"
    """Such as a title: its hashed n-grams."""
    VECTOR = "vector"
    """A list of numbers, as many for each item, that another model has made."""


class Ngrams(str, Enum):
    """What a text is cut into."""

    WORDS = "words"
    CHARACTERS = "characters"


@dataclass(kw_only=True, slots=True)
class ItemFeatureConfig:
    """One feature of items; which keys may be set depends on ``type``, see :func:`check_item_features`."""

    column: str = ""
    """Column of ``data.items`` that holds the feature; empty: named as the feature."""
    type: ItemFeatureType = ItemFeatureType.CATEGORY
    """What the values are: category, categories, number, text or vector."""
    encode: Encode = Encode.INDEX
    """How a category becomes a code: by its place among the frequent values, or by a bucket of its hash."""
    max_values: int = 1000
    """Frequent values of a category that are kept apart, the rest is "other"; with hash: buckets."""
    normalise: Normalise = Normalise.NONE
    """What is done to a number: nothing, mean 0 and standard deviation 1, or the range 0 to 1."""
    fill: str = ""
    """What a missing category or number becomes; empty: the mean of a number, for a category a separate value."""
    separator: str = "|"
    """Between the values of ``categories`` that are written as one text."""
    ngrams: Ngrams = Ngrams.WORDS
    """What a text is cut into; characters for languages that write no blanks between words."""
    max_ngram: int = 2
    """Words, or characters, of the longest n-grams of a text; the shorter ones are kept too."""
    num_buckets: int = 4096
    """Buckets that the hashes of a text's n-grams fall into."""

    @property
    def as_event_feature(self) -> FeatureConfig:
        """The same of one value, where the type has one: cleaned and encoded as a feature of events is."""
        kind = FeatureType.NUMBER if self.type is ItemFeatureType.NUMBER else FeatureType.CATEGORY
        return FeatureConfig(
            column=self.column,
            type=kind,
            encode=self.encode,
            max_values=self.max_values,
            normalise=self.normalise,
            fill=self.fill,
        )


_KEYS = {
    "category": ("encode", "max_values", "fill"),
    "categories": ("encode", "max_values", "separator"),
    "number": ("normalise", "fill"),
    "text": ("ngrams", "max_ngram", "num_buckets"),
    "vector": (),
}
"""Which keys each type takes beside ``column``."""


def check_item_features(features: dict[str, ItemFeatureConfig]) -> None:
    """Raise :class:`ConfigError` for a bad name, a value out of bounds, and keys that the type does not take."""
    default = ItemFeatureConfig()
    for name, feature in features.items():
        key = f"data.item_features.{name}"
        check_feature_name(key, name)
        if name == "item":
            raise ConfigError(f"{key}: the store has a column item already; rename the feature")
        check_bounds(f"{key}.", feature, max_ngram=(1, 8), num_buckets=(1, 10**7))
        require(bool(feature.separator), f"{key}.separator is empty; name what stands between the values")
        takes = _KEYS[feature.type.value]
        for each in ("encode", "max_values", "normalise", "fill", "separator", "ngrams", "max_ngram", "num_buckets"):
            value = getattr(feature, each)
            if each not in takes and value != getattr(default, each):
                shown = value.value if isinstance(value, Enum) else value
                types = ", ".join(kind for kind, keys in _KEYS.items() if each in keys)
                raise ConfigError(
                    f"{key}.{each}={shown} is of {types}, and {key}.type={feature.type.value}; leave it out, or set "
                    f"another type"
                )
        check_feature_keys(key, feature.as_event_feature)
