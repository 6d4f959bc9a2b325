"""Raw values of a feature to what a model reads, by a store's statistics: the same in prepare and at inference."""

import hashlib

import numpy as np
import polars as pl

from configs.schema.features import Encode, FeatureType
from data_pipeline.store.features import FIRST_VALUE, MISSING, OTHER, StoredFeature


def encoded(feature: StoredFeature, raw: pl.Series) -> pl.Series:
    """Codes (int32) or normalised numbers (float32) of ``raw`` [T]: strings or float64, null where missing."""
    if feature.type is FeatureType.NUMBER:
        shift, scale = feature.shift_and_scale
        return ((raw.fill_null(feature.filled_by) - shift) / scale).cast(pl.Float32)
    filled = raw.fill_null(feature.fill) if feature.fill else raw
    table = _buckets_of(filled, feature.max_values) if feature.encode is Encode.HASH else _vocabulary_of(feature)
    found = filled.alias("value").to_frame().join(table, on="value", how="left", maintain_order="left")["code"]
    return found.fill_null(OTHER).zip_with(
        filled.is_not_null(), pl.repeat(MISSING, len(raw), dtype=pl.Int32, eager=True)
    )


def bucket_of(value: str, num_buckets: int) -> int:
    """A bucket in [0, num_buckets) that hangs on the characters alone: not on machine, version or process."""
    digest = hashlib.blake2b(value.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_buckets


def _vocabulary_of(feature: StoredFeature) -> pl.DataFrame:
    codes = np.arange(FIRST_VALUE, FIRST_VALUE + len(feature.vocabulary), dtype=np.int32)
    return pl.DataFrame({"value": pl.Series(feature.vocabulary, dtype=pl.String), "code": codes})


def _buckets_of(values: pl.Series, num_buckets: int) -> pl.DataFrame:
    different = values.drop_nulls().unique()
    codes = [FIRST_VALUE + bucket_of(value, num_buckets) for value in different]
    return pl.DataFrame({"value": different, "code": pl.Series(codes, dtype=pl.Int32)})
