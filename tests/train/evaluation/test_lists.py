"""What the lists are like equals brute force by the definitions, and known cases are what everybody expects."""

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from ranks import run_ranks
from runs import run_here, tiny_run
from train.evaluate import main as evaluate
from train.evaluation.groups import Grouping
from train.evaluation.list_quality import (
    exposure_by_group,
    exposure_of,
    gini,
    js_divergence,
    kl_divergence,
    mean_with_interval,
)
from train.evaluation.ratings import auc, log_loss
from train.recommend.__main__ import main as recommend

NUM_ITEMS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a log whose items have tags and a shelf, and the lists that ``recommend`` makes of it."""
    folder = tmp_path_factory.mktemp("lists")
    draw = np.random.default_rng(0)
    num = 3000
    items = np.minimum(draw.geometric(0.06, num), NUM_ITEMS)
    items[:NUM_ITEMS] = range(1, NUM_ITEMS + 1)
    log = pl.DataFrame({"user_id": draw.integers(0, 200, num), "item_id": items, "timestamp": np.arange(num)})
    log.write_parquet(folder / "log.parquet")
    rows = {
        "item_id": range(1, NUM_ITEMS - 5),
        "tags": [[f"t{k}" for k in range(item % 4)] for item in range(NUM_ITEMS - 6)],
        "shelf": ["abc"[item % 3] for item in range(NUM_ITEMS - 6)],
    }
    pl.DataFrame(rows).write_parquet(folder / "items.parquet")
    words = [f"data.log={folder}/log.parquet", f"data.items={folder}/items.parquet"]
    words += ["data.item_features.tags.type=categories", "data.item_features.shelf.type=category"]
    prepare(load_config([*words, f"data.store={folder}/store"]).data)
    grouped = "evaluation.groups=[item_popularity,shelf,tags]"
    assert run_here([*tiny_run(str(folder / "store"), folder / "run", 20), grouped]) == 0
    asked = [f"run_dir={folder}/run", "recommend.history=before_test", f"recommend.output={folder}/lists.parquet"]
    assert recommend(asked) == 0
    return folder


class World:
    """The log, the lists and the counts by raw ids, as plain Python."""

    def __init__(self, folder: Path) -> None:
        self.histories: dict[int, list[int]] = {}
        for user, item in pl.read_parquet(folder / "log.parquet").select("user_id", "item_id").iter_rows():
            self.histories.setdefault(user, []).append(item)
        self.ranked = {user: items for user, items in self.histories.items() if len(items) >= 3}
        self.training = {user: items[:-2] if len(items) >= 3 else items for user, items in self.histories.items()}
        self.training = {user: items for user, items in self.training.items() if items}
        lists = pl.read_parquet(folder / "lists.parquet").sort("user_id", "rank")
        found = dict(lists.group_by("user_id").agg("item_id").iter_rows())
        self.lists = {user: found[user] for user in self.ranked}
        self.items = range(1, NUM_ITEMS + 1)
        self.count = {item: sum(own.count(item) for own in self.training.values()) for item in self.items}
        self.users_of = {item: {user for user, own in self.training.items() if item in own} for item in self.items}
        content = pl.read_parquet(folder / "items.parquet")
        self.tags = {item: set[str]() for item in self.items} | {
            item: set(own) for item, own in content.select("item_id", "tags").iter_rows()
        }
        self.shelf = dict(content.select("item_id", "shelf").iter_rows())
        raw = pl.read_parquet(folder / "store" / "items.parquet").sort("item")["raw_item"].to_list()
        before, self.group, total = 0, dict[int, str](), sum(self.count.values())
        for item in sorted(raw, key=lambda item: -self.count[item]):
            name = "head" if before < 0.2 * total else "middle" if before < 0.8 * total else "tail"
            self.group[item] = name if self.count[item] else "no training events"
            before += self.count[item]


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    return World(folder)


def found_in(folder: Path, name: str = "summary.json") -> dict[str, Any]:
    found = json.loads((folder / "run" / name).read_text())
    return found.get("quality", found)["lists"]


def test_coverage_novelty_gini_and_popularity(folder: Path, world: World) -> None:
    found = found_in(folder)
    assert (found["k"], found["num_lists"]) == (10, len(world.lists))
    assert found["coverage"] == len({item for own in world.lists.values() for item in own}) / NUM_ITEMS
    novelty = [
        np.mean([-math.log2(max(len(world.users_of[item]), 1) / len(world.training)) for item in own])
        for own in world.lists.values()
    ]
    assert found["novelty"]["value"] == pytest.approx(np.mean(novelty), abs=1e-9)
    assert found["novelty"]["ci95"][0] < np.mean(novelty) < found["novelty"]["ci95"][1]
    exposure = dict.fromkeys(world.items, 0.0)
    for own in world.lists.values():
        for place, item in enumerate(own, 1):
            exposure[item] += 1 / math.log2(place + 1)
    differences = sum(abs(a - b) for a in exposure.values() for b in exposure.values())
    expected = differences / (2 * NUM_ITEMS * sum(exposure.values()))  # the mean difference of all pairs
    assert found["exposure_gini"] == pytest.approx(expected, abs=1e-9)
    listed = [np.mean([world.count[item] for item in own]) for own in world.lists.values()]
    profile = [np.mean([world.count[item] for item in world.ranked[user][:-1]]) for user in world.lists]
    lift = (np.mean(listed) - np.mean(profile)) / np.mean(profile)
    assert found["popularity_lift"]["value"] == pytest.approx(lift, abs=1e-9)


def test_calibration_of_popularity(folder: Path, world: World) -> None:
    names = ("head", "middle", "tail", "no training events")

    def shares(items: list[int]) -> np.ndarray:
        return np.array([sum(world.group[item] == name for item in items) / len(items) for name in names])

    kl, js = [], []
    for user, own in world.lists.items():
        p, q = shares(world.ranked[user][:-1]), shares(own)
        smooth, middle = 0.99 * q + 0.01 * p, (p + q) / 2
        kl.append(sum(a * math.log(a / b) for a, b in zip(p, smooth, strict=True) if a))
        halves = [sum(a * math.log2(a / m) for a, m in zip(side, middle, strict=True) if a) for side in (p, q)]
        js.append(sum(halves) / 2)
    found = found_in(folder)["popularity_calibration"]
    assert found["kl"]["value"] == pytest.approx(np.mean(kl), abs=1e-9)
    assert found["js"]["value"] == pytest.approx(np.mean(js), abs=1e-9)


def test_exposure_of_groups_against_catalogue_and_demand(folder: Path, world: World) -> None:
    groups = {
        "item_popularity": {item: {name} for item, name in world.group.items()},
        "shelf": {item: {world.shelf.get(item, "(no value)")} for item in world.items},
        "tags": {item: world.tags[item] or {"(no value)"} for item in world.items},
    }
    found = found_in(folder)["exposure"]
    assert found.keys() == groups.keys()
    total = sum(1 / math.log2(place + 1) for own in world.lists.values() for place in range(1, len(own) + 1))
    for kind, of_item in groups.items():
        assert found[kind].keys() == set().union(*of_item.values())
        for name, figures in found[kind].items():
            own = sum(
                1 / math.log2(place + 1)
                for items in world.lists.values()
                for place, item in enumerate(items, 1)
                if name in of_item[item]
            )
            of_catalogue = sum(name in of_item[item] for item in world.items) / NUM_ITEMS
            demand = sum(name in of_item[items[-1]] for items in world.ranked.values()) / len(world.ranked)
            assert figures["share"] == pytest.approx(own / total, abs=1e-9)
            assert figures["against_catalogue"]["value"] == pytest.approx(own / total / of_catalogue, abs=1e-9)
            if demand:
                assert figures["against_demand"]["value"] == pytest.approx(own / total / demand, abs=1e-9)


@pytest.mark.parametrize("by", ["tags", "shelf", "co_occurrence"])
def test_diversity_is_the_mean_distance_of_pairs(folder: Path, world: World, by: str) -> None:
    def distance(first: int, second: int) -> float:
        if by == "shelf":
            return float(world.shelf.get(first, 1) != world.shelf.get(second, 2))
        sets = world.tags if by == "tags" else world.users_of
        shared, whole = len(sets[first] & sets[second]), len(sets[first] | sets[second])
        if by == "co_occurrence":
            return 1 - shared / math.sqrt(max(len(sets[first]) * len(sets[second]), 1))
        return 1 - shared / whole if whole else 1.0

    if by != "tags":  # it is the first of categories
        assert evaluate([f"run_dir={folder}/run", f"evaluation.diversity_by={by}"]) == 0
    found = found_in(folder, "summary.json" if by == "tags" else "evaluation.json")["diversity"]
    expected = [np.mean([distance(*pair) for pair in combinations(own, 2)]) for own in world.lists.values()]
    assert found["by"] == by
    assert found["value"] == pytest.approx(np.mean(expected), abs=1e-6)


def evaluate_here(words: list[str]) -> None:
    assert evaluate(words) == 0


@pytest.mark.slow
def test_lists_are_the_same_on_two_ranks(folder: Path) -> None:
    words = [f"run_dir={folder}/run", "evaluation.batch_size=31", "evaluation.groups=[item_popularity,shelf,tags]"]
    run_ranks(2, evaluate_here, words)
    two, one = found_in(folder, "evaluation.json"), found_in(folder)
    assert two["num_lists"] == one["num_lists"]
    for name in ("coverage", "exposure_gini"):  # a query's last bits may swap two items
        assert two[name] == pytest.approx(one[name], abs=0.02)
    for name in ("novelty", "diversity", "popularity_lift"):
        assert two[name]["value"] == pytest.approx(one[name]["value"], abs=1e-3)


def test_gini_and_divergences_of_known_cases() -> None:
    assert gini(np.ones(7)) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 5.0])) == pytest.approx(3 / 4)
    assert gini(np.zeros(3)) == 0
    same, other = np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])
    assert js_divergence(other, other[:, ::-1]) == pytest.approx(1)
    assert js_divergence(same, same) == pytest.approx(0)
    assert kl_divergence(same, same) == pytest.approx(0)
    assert kl_divergence(other, other[:, ::-1]) == pytest.approx(-math.log(0.01))
    assert exposure_of(np.array([[2, 0], [2, -1]]), 4) == pytest.approx([1 / math.log2(3), 0, 2, 0])


def test_auc_and_log_loss_equal_brute_force_ties_included() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        score, is_positive = np.round(random.random(60), 1), random.random(60) < 0.4
        pairs = [(a > b) + 0.5 * (a == b) for a in score[is_positive] for b in score[~is_positive]]
        assert auc(score, is_positive) == pytest.approx(np.mean(pairs), abs=1e-12)
        probability = np.clip(score, 0.05, 0.95)
        expected = -np.mean([math.log(p if yes else 1 - p) for p, yes in zip(probability, is_positive, strict=True)])
        assert log_loss(probability, is_positive) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(auc(np.ones(3), np.ones(3, bool)))


@pytest.mark.slow
def test_intervals_of_means_and_of_shares_hold_the_truth() -> None:
    random, num_data_sets = np.random.default_rng(1), 1000
    grouping = Grouping("g", ["a", "b"], np.arange(20), np.arange(20) % 2)
    weight = 1 / np.log2(np.arange(2, 7))
    is_even = np.zeros(20)
    is_even[::2] = 1
    population = random.integers(0, 20, (10**5, 5)) ** 2 // 20
    wanted = np.minimum(random.geometric(0.2, 10**5) - 1, 19)
    share = (is_even[population] @ weight).mean() / weight.sum()
    ratio = share / is_even[wanted].mean()
    novelty, hits = population.mean(), np.zeros(3)
    for _ in range(num_data_sets):
        chosen = random.integers(0, len(population), 300)
        of_group = exposure_by_group(population[chosen], wanted[chosen], grouping, 20)["a"]
        intervals = [
            of_group["ci95"],
            of_group["against_demand"]["ci95"],
            mean_with_interval(population[chosen].mean(1))["ci95"],
        ]
        hits += [low <= truth <= high for (low, high), truth in zip(intervals, (share, ratio, novelty), strict=True)]
    assert ((hits / num_data_sets >= 0.93) & (hits / num_data_sets <= 0.97)).all(), hits
