"""What counting alone reaches: popularity, recent popularity and first-order Markov counts, ranked in full; beside
them the trained baselines that were asked for.

Every count orders the whole catalogue without ties, so a target's rank is 1 + its place in that order less the
user's seen items placed before it. Nothing of size users x items is ever made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig, EvaluationConfig
from data_pipeline.split import SplitRule, Subset, split_rule, targets_in
from data_pipeline.store.history_reader import Histories, history_chunks
from data_pipeline.store.manifest import Manifest, item_table, load_manifest
from data_pipeline.training_events import is_training_event, training_items, user_of_event
from train.evaluation.item_models import fit
from train.evaluation.metrics import quality_of

RECENT_MS = 7 * 86_400_000


def baseline_quality(
    config: DataConfig,
    subset: Subset,
    evaluation: EvaluationConfig,
    on_chunk: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, float]]:
    """``quality_of`` each baseline over the evaluable users of ``subset``, counted on the training events alone.

    - ``popular``: items by number of training events, ties by raw item id ascending;
    - ``recent_popular``: by number of training events in the last 7 days of the training events' time span, ties
      (so all items without a recent event, too) in ``popular``'s order;
    - ``markov``: by the count of (last event before the target -> item) among consecutive training events, ties and
      uncounted items in ``popular``'s order;
    - ``evaluation.trained_baselines``: see :mod:`train.evaluation.item_models`; equal scores count half.

    With ``evaluation.leave_out_seen`` the items of the full history before the target are no candidates, and a target
    among them is a miss. Users with fewer than 3 events train but are not evaluated under leave-one-out. Not
    collective. ``on_chunk`` is called before each of many reads, and may raise. Raises DataError when no user is
    evaluable.
    """
    manifest = load_manifest(config.store, config.version)
    rule = split_rule(config, manifest)
    chunks = partial(history_chunks, config.store, manifest, on_chunk)
    baselines = _count(rule, config.store, manifest, chunks)
    models = fit(evaluation, manifest.num_items, (training_items(rule, chunk) for chunk in chunks()))
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in (*baselines, *models)}
    leave_out_seen = evaluation.leave_out_seen
    for chunk in chunks():
        cases = _cases_of(chunk, rule, subset)
        for name, baseline in baselines.items():
            ranks[name].append(_ranks(cases, baseline, leave_out_seen))
        for name, model in models.items():
            ranks[name].append(model.ranks(cases.target, cases.seen_case, cases.seen_item, leave_out_seen))
    if not any(part.size for part in ranks["popular"]):
        raise DataError(f"{config.store} has no evaluable user in subset {subset.value} of split {rule.split.value}")
    return {name: quality_of(np.concatenate(parts)) for name, parts in ranks.items()}


@dataclass(frozen=True, slots=True)
class _Baseline:
    """An order of the catalogue: by ``place`` alone, or the successors of the last item first where there are any.

    The successors are the distinct pairs of consecutive events, as keys ``last * num_items + item``.
    """

    place: np.ndarray  # [V] place in the order by popularity
    pair: np.ndarray  # [P] keys ascending
    place_in_list: np.ndarray  # [P] place of the pair's item among its successors, by count
    pair_by_place: np.ndarray  # [P] last * num_items + place of the item, ascending

    def places(self, last: np.ndarray, item: np.ndarray) -> np.ndarray:
        """0-based place of each ``item`` [N] in the order after ``last`` [N]."""
        by_popularity = self.place[item]
        if self.pair.size == 0:
            return by_popularity
        start = last * len(self.place)
        first = np.searchsorted(self.pair, start)
        num_listed = np.searchsorted(self.pair, start + len(self.place)) - first
        num_listed_before = np.searchsorted(self.pair_by_place, start + by_popularity) - first
        found = np.minimum(np.searchsorted(self.pair, start + item), self.pair.size - 1)
        listed = self.pair[found] == start + item
        return np.where(listed, self.place_in_list[found], num_listed + by_popularity - num_listed_before)


@dataclass(frozen=True, slots=True)
class _Cases:
    """The evaluable users of a chunk: target and last item before it [N], and their distinct seen items [S]."""

    target: np.ndarray
    last: np.ndarray
    seen_case: np.ndarray  # [S] which case the item was seen in
    seen_item: np.ndarray  # [S]


def _count(
    rule: SplitRule, store: str, manifest: Manifest, chunks: Callable[[], Iterator[Histories]]
) -> dict[str, _Baseline]:
    raw_item = item_table(store, manifest, ["item", "raw_item"]).sort_by("item")["raw_item"]
    raw_order = np.argsort(np.argsort(raw_item.to_numpy(zero_copy_only=False), kind="stable"))
    count, recent, num_items = np.zeros_like(raw_order), np.zeros_like(raw_order), len(raw_order)
    pair, pair_count = np.empty(0, np.int64), np.empty(0, np.int64)
    recent_start_ms = _last_training_time(rule, chunks) - RECENT_MS
    for chunk in chunks():
        user = user_of_event(chunk.offsets)
        training = is_training_event(rule, chunk)
        count += np.bincount(chunk.item[training], minlength=num_items)
        recent += np.bincount(chunk.item[training & (chunk.timestamp > recent_start_ms)], minlength=num_items)
        consecutive = training[1:] & (user[1:] == user[:-1])
        item = chunk.item.astype(np.int64)
        keys = (item[:-1] * num_items + item[1:])[consecutive]
        pair, pair_count = _added(pair, pair_count, keys)
    popular = _inverse(np.lexsort((raw_order, -count)))
    none = np.empty(0, np.int64)
    return {
        "popular": _Baseline(popular, none, none, none),
        "recent_popular": _Baseline(_inverse(np.lexsort((popular, -recent))), none, none, none),
        "markov": _markov(popular, pair, pair_count),
    }


def _last_training_time(rule: SplitRule, chunks: Callable[[], Iterator[Histories]]) -> int:
    times = [chunk.timestamp[is_training_event(rule, chunk)].max(initial=0) for chunk in chunks()]
    return int(max(times, default=0))


def _added(pair: np.ndarray, pair_count: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs and their counts with one more for each of ``keys``."""
    new, new_count = np.unique(keys, return_counts=True)
    merged, place = np.unique(np.concatenate([pair, new]), return_inverse=True)
    counts = np.zeros(len(merged), np.int64)
    np.add.at(counts, place, np.concatenate([pair_count, new_count]))
    return merged, counts


def _markov(popular: np.ndarray, pair: np.ndarray, pair_count: np.ndarray) -> _Baseline:
    num_items = len(popular)
    last, item = pair // num_items, pair % num_items
    order = np.lexsort((popular[item], -pair_count, last))
    place_in_list = np.empty_like(pair)
    place_in_list[order] = np.arange(len(pair)) - np.searchsorted(last, last[order])
    return _Baseline(popular, pair, place_in_list, np.sort(last * num_items + popular[item]))


def _cases_of(chunk: Histories, rule: SplitRule, subset: Subset) -> _Cases:
    position = targets_in(rule, Subset(subset), chunk)
    user = user_of_event(chunk.offsets)
    place = np.arange(len(chunk.item)) - chunk.offsets[user]
    evaluable = position >= 0
    case_of_user = np.cumsum(evaluable) - 1
    before = place < position[user]
    item = chunk.item.astype(np.int64)
    num_items = int(item.max(initial=0)) + 1
    seen = np.unique(case_of_user[user[before]] * num_items + item[before])
    at = (chunk.offsets[:-1] + position)[evaluable]
    return _Cases(item[at], item[at - 1], seen // num_items, seen % num_items)


def _ranks(cases: _Cases, baseline: _Baseline, leave_out_seen: bool) -> np.ndarray:
    """[N] 1-based rank of each target; infinite where the target itself is left out."""
    place = baseline.places(cases.last, cases.target)
    ranks = place + 1.0
    if leave_out_seen:
        seen_place = baseline.places(cases.last[cases.seen_case], cases.seen_item)
        ahead = seen_place < place[cases.seen_case]
        ranks -= np.bincount(cases.seen_case[ahead], minlength=len(place))
        ranks[cases.seen_case[seen_place == place[cases.seen_case]]] = np.inf
    return ranks


def _inverse(order: np.ndarray) -> np.ndarray:
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place
