"""What a report says of runs, and what it says where they have not recorded something."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.report.content import content_of
from benchmarks.report.gather import gather
from benchmarks.report.options import options_of
from benchmarks.report.words import amount, plain
from benchmarks.sweep.index import Index
from configs.errors import ConfigError, DataError
from recorded import write_run


def content(*words: str) -> dict[str, Any]:
    options = options_of(words)
    return content_of(gather(options.places, options.metric), options)


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A cheap run, a better one, and one that costs more than both and gives less."""
    return [
        write_run(tmp_path / "cheap", ["loss=bce"], ndcg=0.10, usd=0.01),
        write_run(tmp_path / "good", ["loss=full_softmax"], ndcg=0.15, usd=0.03),
        write_run(tmp_path / "dear", ["loss=gbce"], ndcg=0.12, usd=0.09),
    ]


def test_it_says_what_the_next_point_costs(places: list[str]) -> None:
    found = content(*places)
    assert [row["label"] for row in found["configurations"]] == ["bce", "full_softmax", "gbce"]
    assert [row["is_on_front"] for row in found["configurations"]] == [True, True, False]
    assert found["configurations"][2]["beaten_by"] == 2
    (step,) = found["steps"]
    assert (step["from"], step["to"]) == (1, 2)
    assert step["cost_of_a_point"] == pytest.approx(0.02 / 5)
    assert "0.0500 more NDCG@10 for $0.020 more, so the next point of NDCG@10 (0.01) costs $0.0040." in step["words"]
    assert "The best is 2 (full_softmax)" in found["headline"][0]
    assert any("3 is not worth the cost" in sentence for sentence in found["headline"])


def test_a_model_below_counting_is_told_so(tmp_path: Path) -> None:
    below = content(write_run(tmp_path / "below", ndcg=0.02))
    assert any(
        "BELOW what counting gives: the best baseline, markov, reaches 0.0800" in each for each in below["headline"]
    )
    unclear = content(write_run(tmp_path / "unclear", ndcg=0.079))
    assert any("is not distinguishable from what counting gives" in each for each in unclear["headline"])
    above = content(write_run(tmp_path / "above", ndcg=0.5))
    assert any("above what counting gives" in each for each in above["headline"])


def test_seeds_are_one_configuration(tmp_path: Path) -> None:
    for seed, ndcg in enumerate((0.10, 0.12, 0.14)):
        write_run(tmp_path / f"{seed}", [f"seed={seed}"], ndcg=ndcg, usd=0.01 * (seed + 1))
    (row,) = content(str(tmp_path))["configurations"]
    assert (row["quality"], row["spread"], row["cost"]) == pytest.approx((0.12, 0.02, 0.02))
    assert (row["low"], row["high"]) == pytest.approx((0.11, 0.13))
    assert row["speaker"] == str(tmp_path / "1"), "the median one"


def test_runs_of_another_protocol_are_named_and_not_mixed(places: list[str], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", ["evaluation.leave_out_seen=false"], ndcg=0.9)
    found = content(other, *places)
    assert len(found["configurations"]) == 3
    (left_out,) = found["left_out"]
    assert left_out["place"] == other
    assert "evaluation.leave_out_seen is True in the runs of the pictures and False here" in left_out["why"]


def test_a_run_without_a_cost_is_in_the_table_and_not_on_the_front(places: list[str], tmp_path: Path) -> None:
    write_run(tmp_path / "old", ["model=hstu"], ndcg=0.9, summary={"cost": None})
    rows = content(*places, str(tmp_path / "old"))["configurations"]
    assert (rows[-1]["cost"], rows[-1]["is_on_front"], rows[-1]["quality"]) == (None, False, 0.9)


def test_without_ranks_it_says_that_users_were_not_compared(places: list[str]) -> None:
    (step,) = content(*places)["steps"]
    assert "ranks.parquet" in step["not_paired"]
    assert step["gain_low"] is None


def write_ranks(run: str, ranks: np.ndarray) -> None:
    """As a run writes them, of one user a rank."""
    protocol = {"format": 1, "fingerprint": "f", "split": {}, "leave_out_seen": True, "cutoffs": [10], "num_items": 9}
    table = pa.table(
        {
            "split": ["test"] * len(ranks),
            "user": range(len(ranks)),
            "item": range(len(ranks)),
            "rank": ranks,
            "score": pa.array(ranks, pa.float32()),
            "is_seen": [False] * len(ranks),
            "history_length": pa.array([3] * len(ranks), pa.int32()),
        }
    ).replace_schema_metadata({b"shardrec": json.dumps(protocol).encode()})
    pq.write_table(table, Path(run) / "ranks.parquet")


def test_with_ranks_the_price_of_a_point_has_an_interval(places: list[str]) -> None:
    draw = np.random.default_rng(0)
    worse = draw.integers(2, 40, 500).astype(float)
    write_ranks(places[0], worse)
    write_ranks(places[1], np.maximum(worse - 3, 1.0))
    (step,) = content(*places[:2])["steps"]
    assert step["not_paired"] == ""
    assert 0 < step["gain_low"] < step["gain_high"]
    assert "a point $" in step["words"]


def test_a_gain_that_may_be_chance_is_told_so(places: list[str]) -> None:
    draw = np.random.default_rng(0)
    for place in places[:2]:
        write_ranks(place, draw.integers(1, 40, 500).astype(float))
    (step,) = content(*places[:2])["steps"]
    assert "it may be nothing" in step["words"]
    headline = " ".join(content(*places[:2])["headline"])
    assert "1 (bce) costs $0.010, and user by user it is not distinguishable from the best." in headline


def test_curves_are_over_what_had_been_spent(places: list[str]) -> None:
    lines = content(*places)["curves"]["lines"]
    assert [point["cost"] for point in lines[1]["rows"]] == pytest.approx([0.01, 0.02, 0.03])
    assert [point["quality"] for point in lines[1]["rows"]] == pytest.approx([0.05, 0.10, 0.15])


def test_the_cost_to_a_target_is_over_the_seeds_that_reached_it(tmp_path: Path) -> None:
    for seed, usd in enumerate((0.1, 0.3, None)):
        found = {"metric": "ndcg@10", "target": 0.17, "is_reached": usd is not None}
        reached = {"usd": usd, "step": 10 * seed, "tokens": 100} if usd else {}
        write_run(tmp_path / f"{seed}", [f"seed={seed}"], summary={"target": found | reached})
    (row,) = content(str(tmp_path))["targets"]
    assert (row["target"], row["num_reached"], row["num_runs"]) == ("ndcg@10:0.17", 2, 3)
    assert (row["figures"]["usd"]["mean"], row["figures"]["usd"]["spread"]) == pytest.approx((0.2, 0.02**0.5))
    assert row["figures"]["kwh"] == {"mean": None, "spread": None}


def test_a_recorded_cost_of_a_validation_is_taken(tmp_path: Path) -> None:
    known = [{"step": 2, "metric": "ndcg@10", "value": 0.1, "usd": 0.007}]
    place = write_run(tmp_path / "a", usd=0.03, summary={"time_to_quality": known})
    (line,) = content(place)["curves"]["lines"]
    assert [point["cost"] for point in line["rows"]] == pytest.approx([0.01, 0.007, 0.03])


def test_phases_are_shown_where_they_were_recorded_and_else_named(places: list[str], tmp_path: Path) -> None:
    cost = {"phases_s": {"start": 2.0, "encoder": 8.0}, "lost_device_s": 1.0, "peak_memory_bytes": [1, 5], "mfu": 0.1}
    write_run(tmp_path / "new", ["model=hstu"], summary={"cost": cost})
    spending = content(*places, str(tmp_path / "new"))["spending"]
    assert spending["phases"] == ["encoder", "start"]
    assert [row["label"] for row in spending["rows"]] == ["hstu full_softmax"]
    assert spending["rows"][0]["peak_memory_bytes"] == 5
    assert len(spending["missing"]) == 3


def test_groups_stand_side_by_side(places: list[str], tmp_path: Path) -> None:
    found = {"num_targets": 40, "ndcg@10": 0.3, "ndcg@10_ci95": [0.2, 0.4]}
    gap = {"best": "young", "worst": "old", "difference": 0.1, "ci95": [0.0, 0.2]}
    groups = {"age": {"groups": {"young": found, "old": found}, "gaps": {"ndcg@10": gap}}}
    write_run(tmp_path / "new", ["model=hstu"], usd=0.5, summary={"quality": {"groups": groups, "coverage": 0.7}})
    said = content(*places, str(tmp_path / "new"))["groups"]
    assert said["kinds"]["age"]["groups"]["young"]["values"] == {4: {"quality": 0.3, "low": 0.2, "high": 0.4}}
    assert said["kinds"]["age"]["gaps"] == {4: gap}
    assert said["others"]["coverage"] == {4: 0.7}


def test_lists_and_exposure_stand_side_by_side(places: list[str], tmp_path: Path) -> None:
    novelty, ratio = {"value": 5.0, "ci95": [4.5, 5.5]}, {"value": 2.0, "ci95": [1.5, 2.5]}
    exposure = {"item_popularity": {"head": {"share": 0.4, "against_catalogue": ratio, "against_demand": ratio}}}
    lists = {"k": 10, "coverage": 0.3, "novelty": novelty, "popularity_calibration": {"kl": novelty}}
    write_run(
        tmp_path / "new", ["model=hstu"], usd=0.5, summary={"quality": {"lists": lists | {"exposure": exposure}}}
    )
    said = content(*places, str(tmp_path / "new"))["lists"]
    assert said["figures"]["novelty, in bits"] == {4: {"value": 5.0, "low": 4.5, "high": 5.5}}
    assert said["figures"]["share of the catalogue that is shown"] == {4: {"value": 0.3, "low": None, "high": None}}
    assert "popularity calibration, Kullback-Leibler" in said["figures"]
    cell = {"value": 2.0, "low": 1.5, "high": 2.5}
    assert said["exposure"]["item_popularity"]["head"] == {4: {"against_catalogue": cell, "against_demand": cell}}


def test_a_sweep_is_reported_with_the_runs_that_have_not_ended(places: list[str], tmp_path: Path) -> None:
    (Path(places[2]) / "summary.json").unlink()
    Index(tmp_path).write()
    found = content(str(tmp_path))
    assert [row["label"] for row in found["configurations"]] == ["bce", "full_softmax"]
    assert "no summary.json" in found["left_out"][0]["why"]


def test_no_run_counts_twice(places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(places[0])
    found = content(*places, str(tmp_path), "cheap", f"{places[1]}/", f"{tmp_path}/link")
    assert [len(row["runs"]) for row in found["configurations"]] == [1, 1, 1]


def test_an_empty_sweep_and_an_unreadable_run_are_named(places: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="empty holds no run"):
        content(str(empty))
    write_run(empty / "a")
    (empty / "a" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="empty is a sweep without a run that has ended"):
        content(str(empty))
    (Path(places[0]) / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"cheap/summary\.json is damaged"):
        content(*places)


def test_metrics_that_no_run_has_and_runs_without_quality_are_named(places: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"metric=ndcg@7 is in no run; they have hr@10"):
        content(*places, "metric=ndcg@7")
    untested = write_run(tmp_path / "untested", summary={"quality": None})
    with pytest.raises(ConfigError, match="untested has no quality"):
        content(untested)
    assert content(*places, untested)["left_out"][0]["place"] == untested


@pytest.mark.parametrize(
    "words", [[], ["--all"], ["a", "cost=gold"], ["a", "output=x.txt"], ["a", "metric=<b>"], ["a", "colour=red"]]
)
def test_wrong_options_are_named(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        options_of(words)


def test_amounts_have_two_digits_that_matter() -> None:
    assert [plain(value) for value in (0, 0.000123456, 0.0999, 0.5, 12.345, 1234.5)] == [
        *("0", "0.00012", "0.100", "0.50", "12.35", "1,234"),
    ]
    assert (amount(0.5, "usd"), amount(0.5, "kwh")) == ("$0.50", "0.50 kWh")
