"""The curve shows every value at its height, and the words add up what the rows say."""

from pathlib import Path
from typing import Any

import pytest

from configs.schema import FollowConfig, RunConfig
from data_pipeline.prepare.windows import Cut
from train.follow.curve import HEIGHT, WIDTH, curve
from train.follow.journey import FIRST, Journey
from train.follow.table import BASELINES, summary_words


def test_the_highest_value_is_on_top_zero_at_the_bottom_and_a_gap_is_empty() -> None:
    title, *lines = curve({"a": [1.0, None, 0.0], "b": [0.5, None, 0.5]})
    cells = [line.partition("|")[2].ljust(3) for line in lines[:HEIGHT]]
    assert [row for row in range(HEIGHT) if cells[row][0] == "o"] == [0]
    assert [row for row in range(HEIGHT) if cells[row][2] == "o"] == [HEIGHT - 1]
    assert {cells[row][1] for row in range(HEIGHT)} == {" "}
    assert sum(row.count("*") for row in cells) == 2
    assert "o a" in title
    assert "* b" in title


@pytest.mark.parametrize("number", [1, WIDTH, WIDTH + 1, 10 * WIDTH + 3])
def test_the_curve_is_never_wider_than_a_page(number: int) -> None:
    assert max(map(len, curve({"a": [0.1] * number}))) <= WIDTH + 9
    assert curve({"a": [None] * number}) == ["no window was scored"]


def journey(counts: list[int], **follow: Any) -> Journey:
    config = RunConfig(run_dir="runs/f", follow=FollowConfig(**follow))
    ids = {"user": "Int64", "item": "Int64"}
    cut = Cut(first_start_ms=0, window_ms=1, num_events=counts, id_types=ids, rows_read=sum(counts), rows_filtered=0)
    return Journey(config, [], cut)


def test_updates_come_when_they_are_due_and_something_is_new() -> None:
    found = journey([9, 1, 0, 0, 0, 2, 0, 3], update_every=[1, 3])
    assert found.updates(1, 7) == [1, 5, 7]
    assert found.updates(3, 7) == [3, 6]
    assert found.updates(0, 7) == []
    assert [found.version(window) for window in range(8)] == [1, 2, 2, 2, 2, 3, 3, 4]
    assert [found.run_of("every_3", window) for window in (0, 2, 3, 5, 6)] == [
        *(FIRST, FIRST, "every_3-000003", "every_3-000003", "every_3-000006"),
    ]
    assert found.run_of("not_updated", 7) == FIRST


def test_an_update_begins_with_the_model_of_before_and_scores_with_it() -> None:
    found = journey([9, 1, 1, 1], update_every=[1])
    words = found.update_words("every_1", 2)
    assert f"run_dir={Path('runs/f/models/every_1-000002')}" in words
    assert f"init_from={Path('runs/f/models/every_1-000001')}" in words
    assert "data.version=3" in words
    cold = journey([9, 1, 1, 1], update_every=[1], warm_start=False).update_words("every_1", 2)
    assert not [word for word in cold if word.startswith("init_")]


def row(window: int, targets: int, before: float, after: float, device_s: float) -> dict[str, Any]:
    def of(value: float) -> dict[str, Any]:
        baselines = {name: {"ndcg@10": 0.1, "hr@10": 0.1} for name in BASELINES}
        return {
            "test": {"ndcg@10": value, "hr@10": value},
            "num_test_users": targets,
            "baselines": baselines,
        }

    updates = {"every_1": {"device_s": device_s, "usd": device_s / 100}}
    return {"window": window, "quality": {"not_updated": of(before), "every_1": of(after)}, "updates": updates}


def test_the_words_weigh_windows_by_their_targets_and_leave_out_the_update_that_nothing_scored() -> None:
    rows = [row(1, 100, 0.2, 0.2, 1800.0), row(2, 300, 0.2, 0.4, 1800.0), row(3, 100, 0.2, 0.1, 9999.0)]
    first, second = summary_words(journey([9, 1, 1, 1], update_every=[1]), rows)
    assert "3 windows with 500 targets the model that is not updated has NDCG@10 0.2000" in first
    assert "NDCG@10 0.3000, +0.1000; better in 1 windows, worse in 1; +50 hits" in second
    worse = [row(1, 100, 0.05, 0.05, 1.0), row(2, 100, 0.05, 0.06, 1.0)]
    assert "No model is as good as popular" in summary_words(journey([9, 1, 1], update_every=[1]), worse)[-1]
    assert "2 updates took 1.0000 device-hours and 36.0000 USD: +0.100 NDCG@10 and +50 hits per device-hour" in second
