"""How different the items of a list are: by what they are, or by who has them.

N users, k rows of a list, C codes or numbers of an item, L different items in all lists, B lists at once.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from configs.errors import ConfigError
from configs.schema import RunConfig
from configs.schema.item_features import ItemFeatureType
from data_pipeline.split import split_rule
from data_pipeline.store.features import FIRST_VALUE, MISSING
from data_pipeline.store.history_reader import history_chunks
from data_pipeline.store.item_content import ContentColumn
from data_pipeline.store.manifest import Manifest, item_content
from data_pipeline.training_events import training_items
from train.evaluation.shared_users import UserItems, shared_users

CO_OCCURRENCE = "co_occurrence"
MOST_PRODUCTS = 10**11
"""Multiplications that co-occurrence may take where nobody has asked for it: about a second."""
MOST_ITEMS = 8192
"""Of lists, for co-occurrence: their square is held."""
_BLOCK = 2**22
"""Numbers of items that are held at once."""
_DEFAULTS = (ItemFeatureType.CATEGORIES, ItemFeatureType.CATEGORY)
_FIT = (*_DEFAULTS, ItemFeatureType.VECTOR, ItemFeatureType.TEXT)


def refuse_unknown_diversity(config: RunConfig, manifest: Manifest) -> None:
    """Raise :class:`ConfigError` where ``evaluation.diversity_by`` names nothing that says how near two items are."""
    name = config.evaluation.diversity_by
    known = _features(manifest)
    if name and name != CO_OCCURRENCE and name not in known:
        raise ConfigError(
            f"evaluation.diversity_by={name}: data.store={config.data.store} has no such item feature that is a "
            f"category, categories, a text or a vector; use {CO_OCCURRENCE}"
            f"{''.join(f', {each}' for each in known)}, or leave it out"
        )


def chosen_measure(config: RunConfig, manifest: Manifest) -> str:
    """The item feature, or co-occurrence, by which ``config`` measures the diversity of lists."""
    features = _features(manifest)
    defaults = [name for kind in _DEFAULTS for name, each in features.items() if each is kind]
    return config.evaluation.diversity_by or (defaults[0] if defaults else CO_OCCURRENCE)


def diversity_of(
    item: np.ndarray,
    config: RunConfig,
    manifest: Manifest,
    on_chunk: Callable[[], None] = lambda: None,
) -> tuple[str, np.ndarray | None]:
    """By what, and of each list of ``item`` [N, k] the mean distance of its pairs [N], NaN where there is no pair.
    None where co-occurrence, which nobody has asked for, would take long, or more memory than there may be."""
    name = chosen_measure(config, manifest)
    if name != CO_OCCURRENCE:
        return name, by_content(item, item_content(config.data.store, manifest, [name])[name])
    listed = np.unique(item[item >= 0])
    is_cheap = manifest.num_users * len(listed) ** 2 <= MOST_PRODUCTS
    if len(listed) > MOST_ITEMS or not (is_cheap or config.evaluation.diversity_by):
        return name, None
    return name, by_co_occurrence(item, listed, config, manifest, on_chunk)


def by_content(item: np.ndarray, column: ContentColumn) -> np.ndarray:
    """Of each list [N, k]: 1 less the Jaccard index of the codes of two items, or less the cosine of their vectors;
    an item without a value is as far as can be from all others."""
    if column.feature.type is ItemFeatureType.CATEGORY:
        codes = np.where(item >= 0, column.values[item], MISSING)
        is_same = (codes[:, :, None] == codes[:, None, :]) & (codes[:, :, None] != MISSING)
        return _mean_of_pairs(1.0 - is_same, item >= 0)
    width = column.feature.width or column.feature.num_codes
    step = max(_BLOCK // (item.shape[1] * width), 1)
    parts = [_distances(item[low : low + step], column, width) for low in range(0, len(item), step)]
    return np.concatenate([np.zeros(0), *parts])


def by_co_occurrence(
    item: np.ndarray,
    listed: np.ndarray,
    config: RunConfig,
    manifest: Manifest,
    on_chunk: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Of each list [N, k]: 1 less the cosine of the sets of training users of two of the ``listed`` items [L]:
    shared users by the root of the product of both numbers. Reads the histories once."""
    rule, number = split_rule(config.data, manifest), len(listed)
    place = np.full(manifest.num_items, -1, np.int64)
    place[listed] = np.arange(number)

    def histories() -> Iterator[UserItems]:
        for chunk in history_chunks(config.data.store, manifest, on_chunk):
            user, own, num_users = training_items(rule, chunk)
            is_listed = place[own] >= 0
            yield user[is_listed], place[own[is_listed]], num_users

    shared = shared_users(number, histories(), torch.float32).numpy()  # exact up to 2**24 users
    size = np.sqrt(np.diag(shared))
    where = np.where(item >= 0, place[item], 0)
    step = max(_BLOCK // item.shape[1] ** 2, 1)
    parts = [
        _co_occurrence_of(where[low : low + step], item[low : low + step] >= 0, shared, size)
        for low in range(0, len(item), step)
    ]
    return np.concatenate([np.zeros(0), *parts])


def _co_occurrence_of(where: np.ndarray, is_there: np.ndarray, shared: np.ndarray, size: np.ndarray) -> np.ndarray:
    product = size[where][:, :, None].astype(np.float64) * size[where][:, None, :]
    both = shared[where[:, :, None], where[:, None, :]].astype(np.float64)
    cosine = np.divide(both, product, out=np.zeros_like(product), where=product > 0)
    return _mean_of_pairs(1 - cosine, is_there)


def _features(manifest: Manifest) -> dict[str, ItemFeatureType]:
    content = manifest.item_content.features if manifest.item_content is not None else {}
    return {name: feature.type for name, feature in content.items() if feature.type in _FIT}


def _distances(item: np.ndarray, column: ContentColumn, width: int) -> np.ndarray:
    """[B] of lists [B, k], by dense rows of their items [B, k, C]."""
    rows, flat = np.zeros((item.size, width), np.float32), np.maximum(item, 0).ravel()
    if column.offsets is None:
        rows[:] = column.values[flat]
    else:
        lengths = np.diff(column.offsets)[flat]
        owner = np.repeat(np.arange(len(flat)), lengths)
        at = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + column.offsets[flat][owner]
        codes = column.values[at]
        is_value = codes >= (FIRST_VALUE if column.feature.type is ItemFeatureType.CATEGORIES else 0)
        rows[owner[is_value], codes[is_value]] = 1
    rows = rows.reshape(*item.shape, width)
    shared = (rows @ rows.transpose(0, 2, 1)).astype(np.float64)
    size = np.diagonal(shared, axis1=1, axis2=2)
    if column.offsets is None:
        whole = np.sqrt(size[:, :, None] * size[:, None, :])
    else:
        whole = size[:, :, None] + size[:, None, :] - shared
    similar = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return _mean_of_pairs(1 - similar, item >= 0)


def _mean_of_pairs(distance: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """[B] over the pairs of different rows of ``distance`` [B, k, k] that are there."""
    is_pair = np.triu(np.ones(distance.shape[1:], bool), 1) & is_there[:, :, None] & is_there[:, None, :]
    number = is_pair.sum((1, 2))
    total = np.where(is_pair, distance, 0.0).sum((1, 2))
    return np.divide(total, number, out=np.full(len(distance), np.nan), where=number > 0)
