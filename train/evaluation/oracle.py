"""The best that anyone can reach, where the log was made by a known model; for every other log there is none.

Letters: B users of a chunk, L events, C clusters, K tastes, V items.
"""

from collections.abc import Iterator

import numpy as np

from configs.errors import DataError
from configs.schema import RunConfig, Split
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.split import Subset
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest, item_table, load_manifest
from data_pipeline.synthetic import RAW_ITEM_OFFSET, World, world_of

ORACLE_CHUNK_USERS = 512
ORACLE_SCORES = 2**25
"""Scores of items, or of clusters by taste, that the oracle makes at once: 0.25 GiB for each array of them."""


def oracle_report(config: RunConfig) -> dict[str, float]:
    """``oracle_ndcg@10`` on the test targets, where the oracle answers the question that the model was asked; else
    nothing. Not collective."""
    if not _is_asked_the_same(config):
        return {}
    return {"oracle_ndcg@10": oracle_ndcg(config.data.synthetic, config.data.store, Subset.TEST, config.data.version)}


def oracle_ndcg(config: SyntheticConfig, store: str, subset: Subset, version: int = 0) -> float:
    """NDCG@10 of ranking by the true probability of the next item given the user's history before the target.

    The taste is integrated out with its exact Bayes posterior, so no model that sees only histories does better in
    expectation (on one log it may, by luck, within the bootstrap interval). Leave-one-out targets of users with at
    least 3 events; items seen before the target are left out. ``version`` of ``store`` must hold the whole log that
    :func:`data_pipeline.synthetic.write_log` made of ``config``, prepared without event or item filters; DataError
    when it does not.
    """
    world = world_of(config)
    manifest = load_manifest(store, version)
    latent_of_dense = _latent_of_dense(world, store, manifest)
    total, num_users = 0.0, 0
    num_scores = max(config.num_items, world.taste.size)
    chunk_users = min(ORACLE_CHUNK_USERS, max(1, ORACLE_SCORES // num_scores))
    for items in _histories(store, manifest, latent_of_dense, chunk_users):
        lengths = np.array([len(history) for history in items])
        cut = lengths - (0 if subset == Subset.TEST else 1)
        kept = np.flatnonzero(lengths >= 3)
        if kept.size:
            ranks = _oracle_ranks(world, [items[user][: cut[user]] for user in kept], latent_of_dense)
            total += float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0).sum())
            num_users += kept.size
    if num_users == 0:
        raise DataError(f"{store} has no user with at least 3 events: there is nothing to evaluate")
    return total / num_users


def _is_asked_the_same(config: RunConfig) -> bool:
    """Whether the store holds the whole log that ``data.synthetic`` describes, and the same targets are ranked."""
    data = config.data
    is_whole = data.min_user_events == data.min_item_events == 1 and not data.event_types
    is_same_task = data.split is Split.LEAVE_ONE_OUT and config.evaluation.leave_out_seen
    return data.synthetic.num_users > 0 and is_whole and is_same_task


def _latent_of_dense(world: World, store: str, manifest: Manifest) -> np.ndarray:
    raw = item_table(store, manifest, ["item", "raw_item"]).sort_by("item")["raw_item"].to_numpy()
    latent = np.full(world.num_items + RAW_ITEM_OFFSET, -1, dtype=np.int64)
    latent[world.raw_item] = np.arange(world.num_items)
    if raw.size == 0 or raw.min() < 0 or raw.max() >= latent.size or (latent[raw] < 0).any():
        raise DataError(f"{store}/items.parquet has items that this data.synthetic cannot make; prepare its own log")
    return latent[raw]


def _histories(
    store: str, manifest: Manifest, latent_of_dense: np.ndarray, chunk_users: int
) -> Iterator[list[np.ndarray]]:
    """Chunks of ``chunk_users`` users, each user's items as the generator numbers them."""
    reader = HistoryReader(store, manifest)
    for start in range(0, manifest.num_users, chunk_users):
        histories = reader.read(start, min(start + chunk_users, manifest.num_users))
        yield np.split(latent_of_dense[histories.item], histories.offsets[1:-1])


def _oracle_ranks(world: World, histories: list[np.ndarray], candidates: np.ndarray) -> np.ndarray:
    """[B] rank of the last item of each history among the unseen ``candidates``, by the true probability."""
    lengths = np.array([len(history) for history in histories])
    item = np.full((len(histories), lengths.max()), -1, dtype=np.int64)
    item[np.arange(item.shape[1]) < lengths[:, None]] = np.concatenate(histories)
    log_posterior = np.zeros((len(histories), len(world.taste)))
    num_seen = np.zeros((len(histories), world.num_clusters), dtype=np.int64)
    ranks = np.empty(len(histories))
    for t in range(item.shape[1]):
        last, goes_on = np.flatnonzero(lengths == t + 1), np.flatnonzero(lengths > t + 1)
        if last.size:
            ranks[last] = _ranks_at(world, item[last], t, num_seen[last], log_posterior[last], candidates)
        if goes_on.size:
            cluster = item[goes_on, t] % world.num_clusters
            mass = _cluster_mass(world, item[goes_on], t, num_seen[goes_on])
            log_posterior[goes_on] += np.log(mass[np.arange(goes_on.size), :, cluster])
            num_seen[goes_on, cluster] += 1
    return ranks


def _ranks_at(
    world: World,
    item: np.ndarray,
    t: int,
    num_seen: np.ndarray,
    log_posterior: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    posterior = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    mass = np.einsum("bk,bkc->bc", posterior, _cluster_mass(world, item, t, num_seen))
    every = np.arange(world.num_items)
    weight = np.tile(world.place_weight[every // world.num_clusters], (len(item), 1))
    np.put_along_axis(weight, item[:, :t], 0.0, axis=1)
    unseen = np.zeros((len(item), len(world.place_weight) * world.num_clusters))
    unseen[:, : world.num_items] = weight
    unseen = unseen.reshape(len(item), -1, world.num_clusters).sum(1)
    share = np.divide(mass, unseen, out=np.zeros_like(mass), where=mass > 0)
    score = weight * share[:, every % world.num_clusters]
    target = np.take_along_axis(score, item[:, t : t + 1], axis=1)
    score = np.where(weight > 0, score, -1.0)[:, candidates]
    return 1 + (score > target).sum(1) + ((score == target).sum(1) - 1) / 2


def _cluster_mass(world: World, item: np.ndarray, t: int, num_seen: np.ndarray) -> np.ndarray:
    """[B, K, C] probability that event ``t`` falls into each cluster, by taste."""
    mass = np.tile(world.taste, (len(item), 1, 1))
    if t >= 2:
        before, last = item[:, t - 2] % world.num_clusters, item[:, t - 1] % world.num_clusters
        mass *= 1 - world.transition_probability
        mass[np.arange(len(item)), :, world.successor(before, last)] += world.transition_probability
    full = num_seen >= world.cluster_size
    for _ in range(world.num_clusters if full.any() else 0):
        moved = np.where(full[:, None], mass, 0.0)
        if not moved.any():
            break
        mass = mass - moved + np.roll(moved, 1, axis=2)
    return mass
