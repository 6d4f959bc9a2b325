"""What a run says of its split: shares, a few wrong clocks, targets that were seen before."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.load import load_config
from configs.schema import Split
from data_pipeline.split import split_rule
from data_pipeline.store import time_boundaries
from data_pipeline.store.manifest import load_manifest
from stores import kinds_of_items, places_of_a_cold_split, random_histories, write_store
from train.evaluation import split_report as report_module
from train.evaluation.split_report import SplitReport, split_report

BY_TIME = "data.split=global_time"
DAY_MS = 86_400_000
START_MS = 1_262_304_000_000


def lines_of(store: str, *overrides: str) -> list[str]:
    config = load_config([f"data.store={store}", *overrides])
    manifest = load_manifest(store)
    return split_report(config.data, manifest).lines(config, manifest)


def report_of(store: str, *overrides: str) -> SplitReport:
    return split_report(load_config([f"data.store={store}", *overrides]).data, load_manifest(store))


def histories_in_time(num_users: int = 60) -> tuple[list[list[int]], list[list[int]]]:
    """Ten events of each user at random times of ten years."""
    draw = np.random.default_rng(4)
    times = np.sort(START_MS + draw.integers(0, 3650 * DAY_MS, (num_users, 10)), axis=1)
    return draw.integers(0, 50, times.shape).tolist(), times.tolist()


@pytest.mark.parametrize("split", list(Split))
def test_events_and_targets_are_those_of_a_plain_count(tmp_path: Path, split: Split):
    items, times = random_histories(300)
    store = write_store(tmp_path / "s", items, times, row_group_users=64)
    report = report_of(store, f"data.split={split.value}")
    assert sum(report.num_events.values()) == sum(map(len, items))
    ends = [report.rule.valid_start_ms, report.rule.test_start_ms, 10**18]
    seen, targets = dict.fromkeys(("valid", "test"), 0), dict.fromkeys(("valid", "test"), 0)
    for history, when in zip(items, times, strict=True):
        for number, name in enumerate(("valid", "test")):
            if split is Split.LEAVE_ONE_OUT:
                place = len(history) - 2 + number if len(history) >= 3 else 0
            elif split is Split.COLD_ITEMS:
                place = places_of_a_cold_split(kinds_of_items(store), history)[1][name]
            else:
                low, high = ends[number : number + 2]
                place = next((place for place, time in enumerate(when) if low <= time < high), 0)
            targets[name] += place > 0
            seen[name] += place > 0 and history[place] in history[:place]
    assert (report.num_targets, report.num_seen_targets) == (targets, seen)


def test_a_large_store_is_counted_by_an_even_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = write_store(tmp_path / "s", *histories_in_time(100))
    monkeypatch.setattr(report_module, "MAX_EVENTS", 250)
    monkeypatch.setattr(report_module, "CHUNK_USERS", 5)
    report = report_of(store)
    assert report.is_sample
    assert report.num_users == 25
    assert "of 25 users that were looked at" in lines_of(store)[0]


@pytest.mark.parametrize("wrong", [0, 4_070_908_800_000])
def test_a_wrong_clock_does_not_move_the_split_and_is_named(tmp_path: Path, wrong: int):
    items, times = histories_in_time()
    right = report_of(write_store(tmp_path / "right", items, times), BY_TIME)
    times[7][0 if wrong == 0 else -1] = wrong
    store = write_store(tmp_path / "wrong", items, times, fingerprint="wrong")
    moved = report_of(store, BY_TIME)
    assert abs(moved.rule.valid_start_ms - right.rule.valid_start_ms) < 30 * DAY_MS
    assert abs(moved.num_events["train"] - right.num_events["train"]) <= 1
    (line,) = [line for line in lines_of(store, BY_TIME) if "far from the rest" in line]
    assert f"1 of {len(items) * 10} events" in line
    assert ("1970-01-01" if wrong == 0 else "2099-01-01") in line


def test_events_of_one_time_stay_together_and_are_said(tmp_path: Path):
    items = [[1, 2, 3, 4, 5]] * 20
    times = [[day * DAY_MS for day in (1, 2, 3, 3, 4)]] * 20
    store = write_store(tmp_path / "s", items, times)
    report = report_of(store, BY_TIME, "data.global_time_valid_fraction=0.5")
    assert report.num_events == {"train": 40, "valid": 40, "test": 20}
    assert any(
        "have the time of a split point; they stay together" in line
        for line in lines_of(store, BY_TIME, "data.global_time_valid_fraction=0.5")
    )
    with pytest.raises(DataError, match=r"fall on one time.*data\.global_time_valid"):
        report_of(store, BY_TIME)


def test_dates_say_where_the_split_lies(tmp_path: Path):
    items, times = histories_in_time()
    store = write_store(tmp_path / "s", items, times)
    dates = ["data.global_time_valid=2018-01-01", "data.global_time_test=2019-01-01T12:00:00+02:00"]
    rule = report_of(store, BY_TIME, *dates).rule
    assert (rule.valid_start_ms, rule.test_start_ms) == (1_514_764_800_000, 1_546_336_800_000)
    assert "valid from 2018-01-01 on" in lines_of(store, BY_TIME, *dates)[0]
    for broken, named in [
        ([dates[0]], "set together"),
        ([*dates, "data.global_time_valid_fraction=0.7"], "both say where the split is"),
        ([dates[0], "data.global_time_test=2017-01-01"], "must lie before data.global_time_test=2017-01-01"),
        ([dates[0], "data.global_time_test=soon"], "data.global_time_test=soon is no date"),
    ]:
        with pytest.raises(ConfigError, match=named):
            load_config([BY_TIME, *broken])


def test_a_damaged_record_of_the_boundaries_has_no_effect(tmp_path: Path):
    store = write_store(tmp_path / "s", *histories_in_time())
    config, manifest = load_config([f"data.store={store}", BY_TIME]).data, load_manifest(store)
    rule = split_rule(config, manifest)
    (place,) = (Path(store) / "lengths").glob("times-*.json")
    whole = place.read_text()
    for broken in (whole.replace(str(rule.valid_start_ms), str(rule.valid_start_ms + 1)), whole[:40], "", "[]", "{}"):
        place.write_text(broken)
        time_boundaries._FOUND.clear()
        assert split_rule(config, manifest) == rule
        assert place.read_text() == whole, "it is made again"


def test_targets_that_were_seen_are_said_with_the_key(tmp_path: Path):
    again = [[1, 2, 1, 2, 1]] * 10
    store = write_store(tmp_path / "s", again, [list(range(5))] * 10)
    (line,) = [line for line in lines_of(store) if line.startswith("warning")]
    assert "every target is an item that the user has seen before (10 of 10 valid targets, 10 of 10 test" in line
    assert "evaluation.leave_out_seen=false" in line
    assert not any("warning" in line for line in lines_of(store, "evaluation.leave_out_seen=false"))
    some = write_store(tmp_path / "t", [*again, *[[1, 2, 3, 4, 5]] * 20], [list(range(5))] * 30)
    assert any(line.startswith("warning: many targets") for line in lines_of(some))
    few = write_store(tmp_path / "u", [*again, *[[1, 2, 3, 4, 5]] * 90], [list(range(5))] * 100)
    assert not any("warning" in line for line in lines_of(few))
