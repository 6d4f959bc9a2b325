"""What the histories say of the ranked users and of the catalogue: training events, and what came before a target.

V items, N targets of a subset in the order of their users, T events of a chunk, P popularity groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from configs.schema import DataConfig
from data_pipeline.split import SplitRule, Subset, split_rule, targets_in
from data_pipeline.store.history_reader import Histories, history_chunks
from data_pipeline.store.manifest import Manifest
from data_pipeline.training_events import is_training_event, user_of_event

HEAD, MIDDLE, TAIL, UNTRAINED = range(4)
POPULARITY = ("head", "middle", "tail", "no training events")
"""Names of the groups of items by popularity, by the codes above."""
HEAD_SHARE = TAIL_SHARE = 0.2
"""Of the training events: the most popular items that have the first fifth of them are the head, the least popular
ones that have the last fifth are the tail (Abdollahpouri and others, UMAP 2021)."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What training tells of the items."""

    count: np.ndarray
    """Training events of each item, int64 [V]."""
    num_users_of: np.ndarray
    """Different users with a training event of each item, int64 [V]."""
    num_users: int
    """Users with a training event."""

    @property
    def group(self) -> np.ndarray:
        """Of each item by popularity, int8 [V]; items of equal counts are told apart by their dense ids."""
        order = np.argsort(-self.count, kind="stable")
        before = np.cumsum(self.count[order]) - self.count[order]
        total = max(int(self.count.sum()), 1)
        ordered = np.select([before < HEAD_SHARE * total, before < (1 - TAIL_SHARE) * total], [HEAD, MIDDLE], TAIL)
        group = np.empty(len(order), np.int8)
        group[order] = ordered
        group[self.count == 0] = UNTRAINED
        return group


@dataclass(frozen=True, slots=True)
class Profiles:
    """What the histories before the targets are like."""

    user: np.ndarray
    """int64 [N], ascending."""
    num_training: np.ndarray
    """Training events of each user, int64 [N]."""
    mean_count: np.ndarray
    """Mean number of training events of the items before the target, float64 [N]."""
    group_share: np.ndarray
    """Share of the events before the target that are of items of each popularity group, float64 [N, P]."""
    features: dict[str, np.ndarray] = field(default_factory=dict)
    """Of the targets' events by name, codes or numbers [N]."""


def catalogue_of(config: DataConfig, manifest: Manifest, on_chunk: Callable[[], None] = lambda: None) -> Catalogue:
    """Counts over the training events. Reads the histories once; ``on_chunk`` may raise. Not collective."""
    rule, num_items = split_rule(config, manifest), manifest.num_items
    count, users_of, num_users = np.zeros(num_items, np.int64), np.zeros(num_items, np.int64), 0
    for chunk in history_chunks(config.store, manifest, on_chunk):
        is_training = is_training_event(rule, chunk)
        item, user = chunk.item[is_training].astype(np.int64), user_of_event(chunk.offsets)[is_training]
        count += np.bincount(item, minlength=num_items)
        users_of += np.bincount(np.unique(user * num_items + item) % num_items, minlength=num_items)
        num_users += len(np.unique(user))
    return Catalogue(count, users_of, num_users)


def profiles_of(
    config: DataConfig,
    manifest: Manifest,
    subset: Subset,
    catalogue: Catalogue,
    features: Sequence[str] = (),
    on_chunk: Callable[[], None] = lambda: None,
) -> Profiles:
    """Of the users who have a target in ``subset``, with ``features`` of the targets' events. Reads the histories
    once; ``on_chunk`` may raise. Not collective."""
    rule, group = split_rule(config, manifest), catalogue.group
    parts = [
        _profiles_in(chunk, rule, subset, catalogue.count, group)
        for chunk in history_chunks(config.store, manifest, on_chunk, features=features)
    ]
    return Profiles(
        user=np.concatenate([part.user for part in parts]),
        num_training=np.concatenate([part.num_training for part in parts]),
        mean_count=np.concatenate([part.mean_count for part in parts]),
        group_share=np.concatenate([part.group_share for part in parts]),
        features={name: np.concatenate([part.features[name] for part in parts]) for name in features},
    )


def _profiles_in(chunk: Histories, rule: SplitRule, subset: Subset, count: np.ndarray, group: np.ndarray) -> Profiles:
    position, owner, num_users = targets_in(rule, subset, chunk), user_of_event(chunk.offsets), len(chunk.offsets) - 1
    rows = np.flatnonzero(position >= 0)
    is_before = np.arange(len(chunk.item)) - chunk.offsets[owner] < position[owner]
    user, item = owner[is_before], chunk.item[is_before]
    num_before = np.bincount(user, minlength=num_users)[rows]
    num_groups = len(POPULARITY)
    by_group = np.bincount(user * num_groups + group[item], minlength=num_users * num_groups)
    at = chunk.offsets[rows] + position[rows]
    return Profiles(
        user=rows + chunk.first_user,
        num_training=np.bincount(owner[is_training_event(rule, chunk)], minlength=num_users)[rows],
        mean_count=np.bincount(user, weights=count[item], minlength=num_users)[rows] / num_before,
        group_share=by_group.reshape(num_users, num_groups)[rows] / num_before[:, None],
        features={name: values[at] for name, values in chunk.features.items()},
    )
