"""Further columns of the log that describe an event, and how they are cleaned before a model sees them."""

import math
from dataclasses import dataclass
from enum import Enum

from configs.errors import ConfigError

_NAMES_OF_THE_STORE = ("user", "item", "timestamp", "timestamp_ns", "lengths")


class FeatureType(str, Enum):
    """What the values of a feature are."""

    CATEGORY = "category"
    NUMBER = "number"


class Encode(str, Enum):
    """How a category becomes a code: by its place among the frequent values, or by a bucket of its hash."""

    INDEX = "index"
    HASH = "hash"


class Normalise(str, Enum):
    """What is done to a number: nothing, mean 0 and standard deviation 1, or the range 0 to 1."""

    NONE = "none"
    STANDARD = "standard"
    MIN_MAX = "min_max"


@dataclass(kw_only=True, slots=True)
class FeatureConfig:
    """One feature of events; which keys may be set hangs on ``type``, see :func:`check_features`."""

    column: str = ""
    """Column of the log that holds the feature; empty: named as the feature."""
    type: FeatureType = FeatureType.CATEGORY
    """What the values are."""
    encode: Encode = Encode.INDEX
    """How a category becomes a code: by its place among the frequent values, or by a bucket of its hash."""
    max_values: int = 1000
    """Frequent values of a category that are kept apart, the rest is "other"; with hash: buckets."""
    normalise: Normalise = Normalise.NONE
    """What is done to a number: nothing, mean 0 and standard deviation 1, or the range 0 to 1."""
    fill: str = ""
    """What a missing value becomes; empty: the mean of a number, for a category a separate value."""


def check_features(features: dict[str, FeatureConfig]) -> None:
    """Raise :class:`ConfigError` for a name that cannot be a column of a store, and for keys that do not fit."""
    for name, feature in features.items():
        key = f"data.features.{name}"
        check_feature_name(key, name)
        if name in _NAMES_OF_THE_STORE or name.startswith("raw_"):
            raise ConfigError(f"{key}: a store has a column {name} already; rename the feature")
        check_feature_keys(key, feature)


def check_feature_name(key: str, name: str) -> None:
    """Raise :class:`ConfigError`, which names ``key``, for a name that cannot be that of a column."""
    if not (name.isidentifier() and name.isascii()):
        raise ConfigError(f"{key}: a feature's name is made of letters, digits and _; rename it")


def check_feature_keys(key: str, feature: FeatureConfig) -> None:
    """Raise :class:`ConfigError`, which names a key below ``key``, for keys that do not fit the type."""
    if feature.type is FeatureType.NUMBER:
        _check_number(key, feature)
    else:
        _check_category(key, feature)


def column_of(name: str, feature: FeatureConfig) -> str:
    """The log's column that holds feature ``name``."""
    return feature.column or name


def _check_number(key: str, feature: FeatureConfig) -> None:
    default = FeatureConfig()
    if (feature.encode, feature.max_values) != (default.encode, default.max_values):
        raise ConfigError(
            f"{key}.encode={feature.encode.value} and {key}.max_values={feature.max_values} are of categories; leave "
            f"them out, or set {key}.type=category"
        )
    if feature.fill:
        try:
            is_finite = math.isfinite(float(feature.fill))
        except ValueError:
            is_finite = False
        if not is_finite:
            raise ConfigError(f"{key}.fill={feature.fill} is no number; give one, or leave it out for the mean")


def _check_category(key: str, feature: FeatureConfig) -> None:
    if feature.normalise is not Normalise.NONE:
        raise ConfigError(
            f"{key}.normalise={feature.normalise.value} is of numbers; leave it out, or set {key}.type=number"
        )
    if not 1 <= feature.max_values <= 10**7:
        raise ConfigError(f"{key}.max_values={feature.max_values} must lie in [1, 10000000]")
