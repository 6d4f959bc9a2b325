"""A log of a known generative model.

Items live in clusters of about 20. A user has one latent taste, and makes one event after another:

1. *choose a cluster*: from the third event on, with ``transition_probability`` the successor of the clusters of the
   last TWO events (so that first-order counts see only a part of it), else a draw from the taste's clusters;
2. a cluster whose items the user has all had passes the choice on to the next one, cyclically;
3. *choose an item* of that cluster that the user has not had, by a Zipf law over its places.

Nothing is repeated within a user, times are independent of items, and raw ids are shuffled: they carry nothing.
Letters: B users of a chunk, L events, C clusters, K tastes, M places in a cluster, V items.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import require
from configs.schema.synthetic import SyntheticConfig

CLUSTER_SIZE = 20
NUM_GROUPS = 4
CHUNK_USERS = 4096
TASTE_SHARPNESS = 1.5
RAW_ITEM_OFFSET = 1000
DAY_MS = 86_400_000
START_MS = 1_577_836_800_000
SCHEMA = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])


def write_log(config: SyntheticConfig, path: str) -> None:
    """Write the log as one Parquet file, in chunks of ``CHUNK_USERS`` users, deterministic in ``config.seed``.

    Columns user_id, item_id, timestamp (int64, milliseconds). Inside a chunk the rows are in order of time; one
    user in ten has times of day resolution, whose ties are in the order in which the events happened. With
    ``dirty_fraction`` > 0 that share of the rows is broken and extra: a missing user, item or time, or a negative
    time, each kind in every chunk. Raises ConfigError for an empty log.
    """
    world = world_of(config)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, config.num_users, CHUNK_USERS):
            writer.write_table(_chunk_table(config, world, start))


@dataclass(frozen=True, slots=True)
class World:
    """The generative model's parameters; item ``i`` of V is place ``i // C`` of cluster ``i % C``."""

    num_items: int
    num_clusters: int
    transition_probability: float
    place_weight: np.ndarray  # [M] Zipf
    cluster_size: np.ndarray  # [C]
    taste: np.ndarray  # [K, C] probability of each cluster
    shift: np.ndarray  # [C] how far the second last cluster moves the last one
    follower: np.ndarray  # [C] cluster after a last one so moved
    raw_item: np.ndarray  # [V]

    def successor(self, before: np.ndarray, last: np.ndarray) -> np.ndarray:
        """The cluster after ``before`` and ``last``: a rule, as a table of pairs takes 20 GB at a million items."""
        return self.follower[(last + self.shift[before]) % self.num_clusters]


def world_of(config: SyntheticConfig) -> World:
    """The parameters that ``config`` stands for: a pure function of it."""
    require(config.num_users >= 1, f"data.synthetic.num_users={config.num_users} must be at least 1 to make a log")
    require(config.num_items >= 2, f"data.synthetic.num_items={config.num_items} must be at least 2 to make a log")
    require(config.num_tastes >= 1, f"data.synthetic.num_tastes={config.num_tastes} must be at least 1")
    require(config.mean_length >= 1, f"data.synthetic.mean_length={config.mean_length} must be at least 1")
    rng = np.random.default_rng([config.seed, 0])
    num_clusters = max(1, config.num_items // CLUSTER_SIZE)
    num_places = -(-config.num_items // num_clusters)
    cluster = np.arange(num_clusters)
    popularity = (cluster + 1.0) ** (-config.zipf_exponent / 2)
    liking = np.exp(TASTE_SHARPNESS * rng.standard_normal((config.num_tastes, num_clusters)))
    taste = popularity * liking
    shift = rng.permutation(num_clusters)[np.arange(num_clusters) % min(NUM_GROUPS, num_clusters)]
    follower = rng.permutation(num_clusters)
    return World(
        num_items=config.num_items,
        num_clusters=num_clusters,
        transition_probability=config.transition_probability,
        place_weight=(np.arange(num_places) + 1.0) ** -config.zipf_exponent,
        cluster_size=(config.num_items - cluster + num_clusters - 1) // num_clusters,
        taste=taste / taste.sum(1, keepdims=True),
        shift=shift,
        follower=follower,
        raw_item=RAW_ITEM_OFFSET + rng.permutation(config.num_items),
    )


def _chunk_table(config: SyntheticConfig, world: World, start: int) -> pa.Table:
    rng = np.random.default_rng([config.seed, 1, start])
    num_users = min(CHUNK_USERS, config.num_users - start)
    lengths = _lengths(config, num_users, rng)
    item = _draw_histories(world, lengths, config.num_tastes, rng)
    time = _draw_times(item.shape, rng)
    happened = np.arange(item.shape[1]) < lengths[:, None]
    user = np.broadcast_to(np.arange(start, start + num_users)[:, None] + 1, item.shape)
    rows = np.stack([user[happened], world.raw_item[item[happened]], time[happened]])
    rows = rows[:, np.argsort(rows[2], kind="stable")]
    valid = np.ones(rows.shape, dtype=bool)
    if config.dirty_fraction > 0:
        rows, valid = _with_dirty_rows(rows, config.dirty_fraction, rng)
    arrays = [pa.array(values, mask=~present) for values, present in zip(rows, valid, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _lengths(config: SyntheticConfig, num_users: int, rng: np.random.Generator) -> np.ndarray:
    """Gamma-Poisson lengths of the given mean, at least 1, at most half of the catalogue."""
    rate = rng.gamma(4.0, max(config.mean_length - 1, 0) / 4.0, size=num_users)
    return np.minimum(1 + rng.poisson(rate), max(1, config.num_items // 2))


def _draw_histories(world: World, lengths: np.ndarray, num_tastes: int, rng: np.random.Generator) -> np.ndarray:
    """[B, L] item of each event; what lies beyond a user's length is to be ignored."""
    num_users, longest = len(lengths), int(lengths.max())
    taste_cdf = world.taste.cumsum(1)
    taste = rng.integers(num_tastes, size=num_users)
    item = np.full((num_users, longest), -1, dtype=np.int64)
    cluster = np.full((num_users, longest), -1, dtype=np.int64)
    for t in range(longest):
        chosen = _draw_clusters(taste_cdf, taste, rng)
        follows = rng.random(num_users) < world.transition_probability
        if t >= 2:
            chosen = np.where(follows, world.successor(cluster[:, t - 2], cluster[:, t - 1]), chosen)
        chosen = _pass_on_full(world, chosen, cluster[:, :t])
        weight = _unseen_weights(world, chosen, item[:, :t])
        threshold = rng.random(num_users) * weight.sum(1)
        place = (weight.cumsum(1) <= threshold[:, None]).sum(1)
        cluster[:, t] = chosen
        item[:, t] = np.minimum(place, world.cluster_size[chosen] - 1) * world.num_clusters + chosen
    return item


def _draw_clusters(taste_cdf: np.ndarray, taste: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    draw = rng.random(len(taste))
    chosen = np.empty(len(taste), dtype=np.int64)
    for k, cdf in enumerate(taste_cdf):
        mine = taste == k
        chosen[mine] = np.searchsorted(cdf, draw[mine] * cdf[-1], side="right")
    return np.minimum(chosen, taste_cdf.shape[1] - 1)


def _pass_on_full(world: World, chosen: np.ndarray, past_clusters: np.ndarray) -> np.ndarray:
    """The first cluster from ``chosen`` [B] on, cyclically, of which the user has an unseen item."""
    chosen = chosen.copy()
    active = np.arange(len(chosen))
    while active.size:
        num_seen = (past_clusters[active] == chosen[active, None]).sum(1)
        active = active[num_seen >= world.cluster_size[chosen[active]]]
        chosen[active] = (chosen[active] + 1) % world.num_clusters
    return chosen


def _unseen_weights(world: World, cluster: np.ndarray, past_items: np.ndarray) -> np.ndarray:
    """[B, M] weight of each place of the user's ``cluster`` [B]; 0 where there is no item or it was seen."""
    place = np.arange(len(world.place_weight))
    weight = np.where(place < world.cluster_size[cluster, None], world.place_weight, 0.0)
    user, position = np.nonzero((past_items % world.num_clusters == cluster[:, None]) & (past_items >= 0))
    weight[user, past_items[user, position] // world.num_clusters] = 0.0
    return weight


def _draw_times(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """[B, L] times in sessions of a few minutes, days apart; one user in ten has whole days only."""
    in_session = 1000 + rng.exponential(120_000, size=shape)
    between = rng.exponential(2 * DAY_MS, size=shape)
    gap = np.where(rng.random(shape) < 0.2, between, in_session)
    time = START_MS + (rng.random((shape[0], 1)) * 300 * DAY_MS + gap.cumsum(1)).astype(np.int64)
    whole_days = rng.random((shape[0], 1)) < 0.1
    return np.where(whole_days, time - time % DAY_MS, time)


def _with_dirty_rows(rows: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """``rows`` [3, N] with broken copies put between them, and which of their values are present."""
    num_clean = rows.shape[1]
    num_dirty = max(4, round(num_clean * fraction / (1 - fraction)))
    dirty = rows[:, rng.integers(num_clean, size=num_dirty)].copy()
    kind = np.arange(num_dirty) % 4
    dirty_valid = kind != np.arange(3)[:, None]
    dirty[2, kind == 3] *= -1
    place = np.sort(rng.integers(num_clean + 1, size=num_dirty))
    valid = np.ones(rows.shape, dtype=bool)
    return np.insert(rows, place, dirty, axis=1), np.insert(valid, place, dirty_valid, axis=1)
