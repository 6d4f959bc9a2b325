"""Baselines equal a brute-force count, and the numbers that the literature's protocol gives on real logs."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, EvaluationConfig, Split, TrainedBaseline
from configs.schema.source import SourceConfig, TimeUnit
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import Subset
from stores import time_of_quantile
from train.evaluation.baselines import baseline_quality
from train.evaluation.item_models import require_room
from train.evaluation.metrics import quality_of

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
DAY_MS = 86_400_000
Event = tuple[int, int]  # time, item


@pytest.fixture(scope="module")
def log() -> dict[int, list[Event]]:
    """60 users with 1 to 14 events on 25 items, with repeats, over 100 days; times are unique."""
    rng = np.random.default_rng(5)
    times = iter(rng.permutation(100 * 24) * 3_600_000)
    return {
        user: sorted(
            (int(next(times)), int(min(rng.geometric(0.12), 25)) * 7 % 31) for _ in range(rng.integers(1, 15))
        )
        for user in range(60)
    }


@pytest.fixture(scope="module")
def store(log: dict[int, list[Event]], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("baselines")
    rows = [(user, item, time) for user, events in log.items() for time, item in events]
    user, item, time = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": user, "item_id": item, "timestamp": time}), folder / "log.parquet")
    source = SourceConfig(time_unit=TimeUnit.MS)
    prepare(DataConfig(log=str(folder / "log.parquet"), store=str(folder / "store"), source=source))
    return str(folder / "store")


@pytest.mark.parametrize("split", [Split.LEAVE_ONE_OUT, Split.GLOBAL_TIME])
@pytest.mark.parametrize("subset", list(Subset))
@pytest.mark.parametrize("leave_out_seen", [True, False])
def test_baselines_equal_brute_force(
    log: dict[int, list[Event]], store: str, split: Split, subset: Subset, leave_out_seen: bool
) -> None:
    asked = EvaluationConfig(
        leave_out_seen=leave_out_seen, trained_baselines=list(TrainedBaseline), knn_neighbours=3, ease_l2=2.5
    )
    found = baseline_quality(DataConfig(store=store, split=split), subset, asked)
    expected = brute_force(log, split, subset, leave_out_seen)
    assert found.keys() == expected.keys()
    for name, ranks in expected.items():
        assert found[name] == pytest.approx(quality_of(np.array(ranks))), name


def test_a_store_without_evaluable_users_is_refused(tmp_path: Path) -> None:
    table = pa.table({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "timestamp": [1, 2, 3]})
    pq.write_table(table, tmp_path / "log.parquet")
    config = DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "store"))
    prepare(config)
    with pytest.raises(DataError, match="no evaluable user"):
        baseline_quality(config, Subset.TEST, EvaluationConfig())


def brute_force(
    log: dict[int, list[Event]], split: Split, subset: Subset, leave_out_seen: bool
) -> dict[str, list[float]]:
    """Ranks by sorting the whole catalogue for every user."""
    span = [time for events in log.values() for time, _ in events]
    bounds = [time_of_quantile(span, 0.8), time_of_quantile(span, 0.9), max(span) + 1]
    training, cases = [], []
    for events in log.values():
        if split is Split.LEAVE_ONE_OUT:
            num_training = len(events) - 2 if len(events) >= 3 else len(events)
            target = len(events) - (1 if subset is Subset.TEST else 2) if len(events) >= 3 else 0
        else:
            num_training = sum(time < bounds[0] for time, _ in events)
            low, high = bounds[1:] if subset is Subset.TEST else bounds[:2]
            target = next((i for i, (time, _) in enumerate(events) if low <= time < high), 0)
        training.append(events[:num_training])
        if target:
            cases.append(([item for _, item in events[:target]], events[target][1]))
    popular = Counter(item for events in training for _, item in events)
    recent_start = max(time for events in training for time, _ in events) - 7 * DAY_MS
    recent = Counter(item for events in training for time, item in events if time > recent_start)
    pairs = Counter((a[1], b[1]) for events in training for a, b in pairwise(events))
    catalogue = {item for events in log.values() for _, item in events}
    ranks: dict[str, list[float]] = {"popular": [], "recent_popular": [], "markov": []}
    for history, target in cases:
        scores = {
            "popular": lambda item: 0,
            "recent_popular": lambda item: recent[item],
            "markov": lambda item, last=history[-1]: pairs[last, item],
        }
        left_out = set(history) if leave_out_seen else set()
        for name, score in scores.items():
            order = sorted(catalogue - left_out, key=lambda item: (-score(item), -popular[item], item))
            ranks[name].append(order.index(target) + 1 if target in order else np.inf)
    total = Counter(item for events in log.values() for _, item in events)
    items = sorted(catalogue, key=lambda item: (-total[item], item))  # earlier ones first among equal neighbours
    for name, weight in item_weights(training, items).items():
        ranks[name] = [rank_by_weight(weight, items, *case, leave_out_seen) for case in cases]
    return ranks


def item_weights(training: list[list[Event]], items: list[int]) -> dict[str, np.ndarray]:
    """EASE by a regression of each item on the others, and each item's three nearest by cosine."""
    had = np.array([[item in {each for _, each in events} for item in items] for events in training], dtype=float)
    num_items = len(items)
    ease, knn = np.zeros((num_items, num_items)), np.zeros((num_items, num_items))
    for place in range(num_items):
        others = [other for other in range(num_items) if other != place]
        x = had[:, others]
        ease[others, place] = np.linalg.solve(x.T @ x + 2.5 * np.eye(len(others)), x.T @ had[:, place])
        norms = np.linalg.norm(had[:, others], axis=0) * np.linalg.norm(had[:, place])
        cosine = np.divide(x.T @ had[:, place], norms, out=np.zeros(len(others)), where=norms > 0)
        for nearest in np.argsort(-cosine.round(12), kind="stable")[:3]:
            knn[others[nearest], place] = cosine[nearest]
    return {"item_knn": knn, "ease": ease}


def rank_by_weight(
    weight: np.ndarray, items: list[int], history: list[int], target: int, leave_out_seen: bool
) -> float:
    if leave_out_seen and target in history:
        return np.inf
    scores = sum(weight[items.index(item)] for item in set(history)).astype(np.float32)
    own = scores[items.index(target)]
    others = [
        score
        for item, score in zip(items, scores, strict=True)
        if item != target and not (leave_out_seen and item in history)
    ]
    return 1 + sum(score > own for score in others) + 0.5 * sum(score == own for score in others)


def test_matrices_that_do_not_fit_are_refused_with_their_bytes() -> None:
    asked = EvaluationConfig(trained_baselines=[TrainedBaseline.EASE])
    require_room(asked, num_items=10)
    with pytest.raises(ConfigError, match=r"evaluation.trained_baselines=\[ease\] needs [0-9,.]+ GiB"):
        require_room(asked, num_items=10_000_000)
    require_room(EvaluationConfig(), num_items=10_000_000)


@pytest.mark.parametrize(
    ("name", "markov", "popular"),
    [("ml1m", (0.2144, 0.1259), (0.0369, 0.0180)), ("beauty", (0.0668, 0.0439), (0.0115, 0.0055))],
)
def test_published_baselines(
    name: str, markov: tuple[float, float], popular: tuple[float, float], tmp_path: Path
) -> None:
    log = SHARED_DATA / name / "log.parquet"
    if not log.exists():
        pytest.skip(f"{log} is not here: the real logs may not be redistributed, so they lie beside the repository")
    config = DataConfig(log=str(log), store=str(tmp_path / "store"))
    prepare(config)
    baselines = baseline_quality(config, Subset.TEST, EvaluationConfig())
    assert (baselines["markov"]["hr@10"], baselines["markov"]["ndcg@10"]) == pytest.approx(markov, abs=2e-4)
    assert (baselines["popular"]["hr@10"], baselines["popular"]["ndcg@10"]) == pytest.approx(popular, abs=2e-4)
