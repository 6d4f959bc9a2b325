"""Quality by group equals brute force over the log, its intervals hold the truth, and unknown groups are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from configs.errors import ConfigError, DataError
from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import load_manifest
from runs import run_here, tiny_run
from train.evaluate import main as evaluate
from train.evaluation.group_quality import quality_by_group
from train.evaluation.groups import LENGTHS, Grouping, refuse_unknown_groups
from train.evaluation.metrics import user_values
from train.evaluation.user_ranks import RANKS

KEYS = [
    *("data.features.kind.column=event_type", "data.features.price.type=number"),
    "data.features.price.normalise=standard",
    *("data.item_features.genre.type=category", "data.item_features.tags.type=categories"),
    *("data.item_features.size.type=number", "data.item_features.size.normalise=min_max"),
]
GROUPS = ["history_length", "activity", "item_popularity", "kind", "price", "genre", "tags", "size", "age", "shelf"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a log with kinds of events and prices, with files of users and of items beside it."""
    folder = tmp_path_factory.mktemp("groups")
    draw = np.random.default_rng(0)
    num = 6000
    frame = pl.DataFrame(
        {
            "user_id": draw.integers(0, 400, num),
            "item_id": np.minimum(draw.geometric(0.05, num), 80),
            "timestamp": np.arange(num) * 1000,
            "event_type": draw.choice(["view", "buy"], num, p=[0.7, 0.3]),
            "price": np.round(draw.lognormal(size=num), 3),
        }
    )
    frame.write_parquet(folder / "log.parquet")
    items = pl.DataFrame(
        {
            "item_id": range(1, 71),
            "genre": ["abc"[item % 3] for item in range(70)],
            "tags": [[f"t{k}" for k in range(item % 4)] for item in range(70)],
            "size": [float(item) ** 1.5 for item in range(70)],
            "shelf": [f"s{item % 2}" for item in range(70)],
        }
    )
    items.write_parquet(folder / "items.parquet")
    users = pl.DataFrame({"user": range(350), "age": [["young", "old"][user % 2] for user in range(350)]})
    users.write_csv(folder / "users.csv")
    store = [f"data.log={folder}/log.parquet", f"data.items={folder}/items.parquet", *KEYS]
    prepare(load_config([*store, f"data.store={folder}/store"]).data)
    assert run_here([*tiny_run(str(folder / "store"), folder / "run", 30), "evaluation.leave_out_seen=false"]) == 0
    assert evaluate([f"run_dir={folder}/run", *files_of(folder), f"evaluation.groups=[{','.join(GROUPS)}]"]) == 0
    return folder


def files_of(folder: Path) -> list[str]:
    return [
        *(f"evaluation.user_file={folder}/users.csv", "evaluation.user_column=user"),
        f"evaluation.item_file={folder}/items.parquet",
    ]


def targets_of(folder: Path) -> pl.DataFrame:
    """Of each user with three events or more the last one, with its rank, and what belongs to it, by the log."""
    log = pl.read_parquet(folder / "log.parquet")
    histories = log.group_by("user_id").agg(pl.all().last(), num_events=pl.len()).filter(pl.col("num_events") >= 3)
    ranks = pl.read_parquet(folder / "run" / RANKS).filter(pl.col("split") == "test")
    joined = histories.join(ranks.select("rank", user_id="user", target="item"), on="user_id", how="full")
    assert joined["item_id"].equals(joined["target"])
    items = pl.read_parquet(folder / "items.parquet")
    users = pl.read_csv(folder / "users.csv").rename({"user": "user_id"})
    return joined.join(items, on="item_id", how="left").join(users, on="user_id", how="left")


def found_in(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "run" / "evaluation.json").read_text())["groups"][name]


def assert_groups(folder: Path, name: str, labels: list[list[str]]) -> None:
    """``labels``: of each of :func:`targets_of` the groups that it is in."""
    ranks = targets_of(folder)["rank"].to_numpy()
    expected: dict[str, list[float]] = {}
    for rank, own in zip(ranks, labels, strict=True):
        for label in own:
            expected.setdefault(label, []).append(rank)
    found = found_in(folder, name)["groups"]
    assert {label: each["num_targets"] for label, each in found.items()} == {
        label: len(some) for label, some in expected.items()
    }
    for label, some in expected.items():
        for metric in ("ndcg@10", "hr@10"):
            mean = np.mean(user_values(np.array(some), metric))
            assert found[label][metric] == pytest.approx(mean, abs=1e-12), label
            low, high = found[label][f"{metric}_ci95"]
            assert low <= mean <= high


def test_by_history_length_and_activity(folder: Path) -> None:
    lengths = targets_of(folder)["num_events"].to_numpy() - 1
    starts = [max(start for start in LENGTHS if start <= length) for length in lengths]
    ends = dict(zip(LENGTHS, [*(str(end - 1) for end in LENGTHS[1:]), ""], strict=True))
    assert_groups(folder, "history_length", [[f"{start}-{ends[start]}"] for start in starts])
    limit = sorted(lengths)[int(0.95 * (len(lengths) - 1))]
    assert_groups(folder, "activity", [["most active 5%" if each > limit else "others"] for each in lengths])


def test_by_popularity_in_training(folder: Path) -> None:
    log = pl.read_parquet(folder / "log.parquet")
    num = pl.len().over("user_id")
    place = pl.int_range(pl.len()).over("user_id")
    training = log.filter((num < 3) | (place < num - 2))
    counts = dict(training["item_id"].value_counts().iter_rows())
    raw = pl.read_parquet(folder / "store" / "items.parquet").sort("item")["raw_item"].to_list()
    order = sorted(raw, key=lambda item: -counts.get(item, 0))
    before, group, total = 0, {}, sum(counts.values())
    for item in order:
        group[item] = "head" if before < 0.2 * total else "middle" if before < 0.8 * total else "tail"
        before += counts.get(item, 0)
        group[item] = group[item] if counts.get(item, 0) else "no training events"
    assert len(set(group.values())) >= 3
    assert_groups(folder, "item_popularity", [[group[item]] for item in targets_of(folder)["item_id"]])


def test_by_columns_of_events_items_and_files(folder: Path) -> None:
    targets = targets_of(folder)
    assert_groups(folder, "kind", [[kind] for kind in targets["event_type"]])
    assert_groups(folder, "genre", [[genre or "(no value)"] for genre in targets["genre"]])
    tags = [list(own) if own is not None and len(own) else ["(no value)"] for own in targets["tags"]]
    assert_groups(folder, "tags", tags)
    assert_groups(folder, "age", [[age or "(no value)"] for age in targets["age"]])
    assert_groups(folder, "shelf", [[shelf or "(no value)"] for shelf in targets["shelf"]])
    for name in ("price", "size"):
        found = found_in(folder, name)["groups"]
        assert sum(group["num_targets"] for group in found.values()) == len(targets)
        assert 4 <= len(found) <= 5


def test_a_run_tells_its_groups_and_the_gaps_between_them(folder: Path) -> None:
    quality = json.loads((folder / "run" / "summary.json").read_text())["quality"]
    assert list(quality["groups"]) == ["history_length", "activity", "item_popularity"]
    found = found_in(folder, "item_popularity")
    assert found["groups"] == quality["groups"]["item_popularity"]["groups"]
    gap = found["gaps"]["ndcg@10"]
    means = {label: group["ndcg@10"] for label, group in found["groups"].items() if not group["is_small"]}
    assert gap["difference"] == pytest.approx(max(means.values()) - min(means.values()))
    assert (means[gap["best"]], means[gap["worst"]]) == (max(means.values()), min(means.values()))
    assert gap["ci95"][0] < gap["difference"] < gap["ci95"][1]
    tested = [group for group in found["groups"].values() if "p_value" in group]
    assert all(group["p_value"]["ndcg@10"] <= group["p_value_holm"]["ndcg@10"] <= 1 for group in tested)


def test_what_nothing_has_is_refused_before_training(folder: Path) -> None:
    manifest = load_manifest(f"{folder}/store")
    words = [f"data.store={folder}/store"]
    with pytest.raises(
        ConfigError, match=r"evaluation\.groups: data\.store=.*/store has no 'gender' to group by; use"
    ):
        refuse_unknown_groups(load_config([*words, "evaluation.groups=[gender]"]), manifest)
    with pytest.raises(DataError, match=r"neither evaluation\.user_file=.*users\.csv and .* has 'gender'"):
        refuse_unknown_groups(load_config([*words, *files_of(folder), "evaluation.groups=[gender]"]), manifest)
    with pytest.raises(DataError, match=r"evaluation\.user_file=nowhere\.csv does not exist"):
        refuse_unknown_groups(
            load_config([*words, "evaluation.user_file=nowhere.csv", "evaluation.groups=[gender]"]), manifest
        )
    with pytest.raises(ConfigError, match="names activity twice"):
        load_config(["evaluation.groups=[activity,activity]"])


@pytest.mark.slow
def test_intervals_of_groups_and_of_gaps_hold_the_truth_and_equal_groups_differ_in_a_twentieth() -> None:
    random, sizes, num_data_sets = np.random.default_rng(1), (150, 400, 250), 1000
    grouping = Grouping("g", list("abc"), np.arange(sum(sizes)), np.repeat(np.arange(3), sizes))
    skills, truth, hits, covered, alarms = (2.5, 2.5, 2.5), 0.0, np.zeros(3), 0, 0
    population = 1 + np.floor(400 * random.random(10**6) ** skills[0])
    truth = user_values(population, "ndcg@10").mean()
    for number in range(num_data_sets):
        ranks = 1 + np.floor(400 * random.random(sum(sizes)) ** skills[0])
        found = quality_by_group(ranks, grouping, 300, number)
        intervals = [group["ndcg@10_ci95"] for group in found["groups"].values()]
        hits += [low <= truth <= high for low, high in intervals]
        covered += found["gaps"]["ndcg@10"]["ci95"][0] <= 0
        alarms += min(group["p_value_holm"]["ndcg@10"] for group in found["groups"].values()) <= 0.05
    assert ((hits / num_data_sets >= 0.93) & (hits / num_data_sets <= 0.97)).all(), hits
    assert covered / num_data_sets >= 0.93, "of the two that are farthest apart"
    assert alarms / num_data_sets <= 0.06
