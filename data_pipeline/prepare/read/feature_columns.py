"""The log's columns that are features: their types, their values as text or float64, what is wrong in a row."""

import polars as pl

from configs.errors import DataError
from configs.schema.features import FeatureConfig, FeatureType
from data_pipeline.prepare.read.arrow_types import words_of
from data_pipeline.prepare.read.times import without_thousands
from data_pipeline.store.paths import AnyPath

LARGEST_NUMBER = 1e37
"""A larger one leaves float32 where it is normalised, and so does a sum of them float64 at no length of a log."""
MAX_VALUE_BYTES = 1024
"""A longer category is a field that swallowed its neighbours, as a longer id is."""


def event_column(name: str) -> str:
    """The column of spilled events that holds feature ``name``: string or float64, null where missing."""
    return f"feature_{name}"


def typed_column(name: str) -> str:
    """The same beside a log's own columns."""
    return f"typed_feature_{name}"


def check_type(path: AnyPath | str, name: str, feature: FeatureConfig, column: str, dtype: pl.DataType) -> None:
    """Raise :class:`DataError` for a typed column that cannot hold the feature."""
    fits = dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)
    wanted = "numbers, booleans" + (" or their text" if feature.type is FeatureType.NUMBER else " or strings")
    if not fits:
        raise DataError(
            f"{path}: column {column!r} (data.features.{name}) is {words_of(dtype)}; data.features.{name}.type="
            f"{feature.type.value} takes {wanted}"
        )


def typed_value(feature: FeatureConfig, text: pl.Expr, raw: pl.Expr, is_number: bool) -> pl.Expr:
    """The value as string or float64; null where it is missing, NaN, or, for the reasons to tell, no number.

    ``text`` is the trimmed text of it, null where blank or a word for nothing, ``raw`` the column itself.
    """
    if feature.type is FeatureType.CATEGORY:
        return text
    number = (raw if is_number else _digits_of(text)).cast(pl.Float64, strict=False)
    return number.fill_nan(None) + 0.0  # no negative zero: it is written and summed up as another number


def _digits_of(text: pl.Expr) -> pl.Expr:
    """A flag as 1 or 0, a number without the separators of its thousands."""
    trimmed = text.str.strip_chars()
    flag = trimmed.str.to_lowercase()
    plain = pl.when(flag == "true").then(pl.lit("1")).when(flag == "false").then(pl.lit("0"))
    return plain.otherwise(without_thousands(trimmed))


def reasons_of(name: str, feature: FeatureConfig, typed: pl.Expr, text: pl.Expr, is_number: bool) -> list[pl.Expr]:
    """Why a row is broken, by its ``typed`` value and its ``text``."""
    if feature.type is FeatureType.CATEGORY:
        return [_when(typed.str.len_bytes() > MAX_VALUE_BYTES, f"{name}_too_long")]
    too_large = _when(typed.abs() > LARGEST_NUMBER, f"{name}_out_of_range")
    if is_number:
        return [too_large]
    is_nan = text.str.strip_chars().cast(pl.Float64, strict=False).is_nan().fill_null(value=False)
    return [_when(typed.is_null() & text.is_not_null() & ~is_nan, f"{name}_not_a_number"), too_large]


def _when(is_so: pl.Expr, reason: str) -> pl.Expr:
    return pl.when(is_so).then(pl.lit(reason))
