"""What a run says of itself: its cost session by session, what ended it, and whether it is better than counting."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.atomic_files import read_json, write_json
from configs.load import load_config
from ranks import run_ranks
from runs import run_here, tiny_run
from stores import write_store
from train.evaluate import evaluate
from train.run_dir.sessions_file import SESSIONS

RUN = [
    *("model.embedding_dim=16", "data.max_history=12", "data.global_batch_size=32", "log_every_steps=2"),
    *("evaluation.every_steps=2", "evaluation.num_bootstrap_samples=50"),
]


def summary_of(run_dir: Path, name: str = "summary.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / name).read_text())
    return found


def evaluate_here(overrides: list[str]) -> None:
    """Rank the test events of the run on the process group that is there."""
    evaluate(load_config(overrides))


def assert_costs_add_up(summary: dict[str, Any], num_ranks: int) -> None:
    """Every second of every device is in one phase and in one session."""
    cost = summary["cost"]
    assert sum(cost["phases_s"].values()) == pytest.approx(cost["device_hours"] * 3600)
    for total, part in {"usd": "usd", "kwh": "kwh"}.items():
        assert sum(session[part] for session in cost["sessions"]) == pytest.approx(cost[total])
    assert sum(session["wall_s"] for session in cost["sessions"]) == pytest.approx(summary["throughput"]["wall_s"])
    for session in cost["sessions"]:
        assert session["device_s"] == pytest.approx(session["wall_s"] * session["world_size"])
    assert {session["ended"] for session in cost["sessions"]} == {"finished"}
    assert cost["lost_device_s"] == 0
    assert len(cost["peak_memory_bytes"]) == num_ranks
    assert cost["phases_s"].keys() >= {"start", "lookup", "encoder", "loss", "validation", "checkpoints", "ranking"}


@pytest.mark.slow
def test_costs_are_added_up_over_sessions_of_other_numbers_of_ranks_and_prices(store: str, tmp_path: Path):
    overrides = [f"data.store={store}", f"run_dir={tmp_path}", *RUN]
    hours, tokens, prices = 0.0, 0, []
    for session, (num_ranks, price) in enumerate([(4, 2.0), (1, 0.5), (2, 1.0)], start=1):
        more = [f"num_steps={4 * session}", f"hardware.usd_per_device_hour={price}"]
        run_ranks(num_ranks, run_here, [*overrides, *more])
        summary = summary_of(tmp_path)
        prices.append(price)
        own = [(each["world_size"], each["usd"] / each["device_s"] * 3600) for each in summary["cost"]["sessions"]]
        assert own == [(ranks, pytest.approx(usd)) for ranks, usd in zip([4, 1, 2], prices, strict=False)]
        assert summary["cost"]["device_hours"] > hours
        assert summary["cost"]["kwh"] == pytest.approx(summary["cost"]["device_hours"] * 20 / 1000)
        assert summary["throughput"]["tokens"] > tokens
        hours, tokens = summary["cost"]["device_hours"], summary["throughput"]["tokens"]
        assert_costs_add_up(summary, num_ranks)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    elapsed = [row["elapsed_s"] for row in rows]
    assert rows[-1]["step"] == 12
    assert elapsed == sorted(elapsed), "the clock of a resumed run goes on"
    sessions = json.loads((tmp_path / "environment.json").read_text())
    assert [session["world_size"] for session in sessions] == [4, 1, 2]


@pytest.mark.slow
def test_a_run_that_patience_ended_goes_on_with_more_of_it(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    still = [
        "optimizer.lr=1e-12",
        "optimizer.table_lr=1e-12",
        "num_steps=12",
    ]  # no validation is better than the first
    overrides = [f"data.store={store}", f"run_dir={tmp_path}", *RUN, *still]
    run_ranks(1, run_here, [*overrides, "evaluation.patience=2"])
    said = capfd.readouterr().out
    assert (
        "evaluation.patience=2: the last 2 validations were no better than that of step 2, so the run ends at step 6"
        in said
    )
    assert summary_of(tmp_path)["steps"] == 6
    assert summary_of(tmp_path)["ended_by"] == "evaluation.patience"
    run_ranks(1, run_here, [*overrides, "evaluation.patience=2"])
    assert "summary.json is there; evaluation.patience=2" in capfd.readouterr().out
    run_ranks(1, run_here, [*overrides, "evaluation.patience=99"])
    assert "num_steps=12: all 12 steps are trained; raise num_steps to go on" in capfd.readouterr().out
    assert (summary_of(tmp_path)["steps"], summary_of(tmp_path)["ended_by"]) == (12, "num_steps")


@pytest.mark.slow
def test_a_summary_and_an_evaluation_say_what_the_run_is_and_where_it_stands(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    overrides = [f"data.store={store}", f"run_dir={tmp_path}", *RUN, "num_steps=2", "loss=sampled_softmax"]
    run_ranks(1, run_here, overrides)
    said = capfd.readouterr().out
    summary = summary_of(tmp_path)
    assert (summary["model"], summary["loss"]) == ("sasrec", "sampled_softmax")
    assert summary.keys() >= {
        "quality",
        "throughput",
        "cost",
        "data",
        "world_size",
        "steps",
        "best_step",
        "optimizer",
    }
    assert summary["quality"].keys() >= {"test", "test_ci95", "baselines", "verdict", "valid", "num_test_users"}
    assert summary["quality"]["verdict"]["text"] in said
    assert "split leave_one_out: train " in said
    run_ranks(2, evaluate_here, overrides)
    evaluation = summary_of(tmp_path, "evaluation.json")
    assert evaluation["test"] == summary["quality"]["test"]
    assert evaluation["verdict"] == summary["quality"]["verdict"]
    assert evaluation["verdict"]["text"] in capfd.readouterr().out


@pytest.mark.slow
def test_targets_that_nobody_may_rank_are_said_at_the_start_at_the_end_and_where_patience_ends(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    again = [[user % 7, user % 5, user % 7, user % 5, user % 7] for user in range(60)]
    store = write_store(tmp_path / "store", again, [list(range(5))] * 60)
    overrides = [f"data.store={store}", f"run_dir={tmp_path / 'run'}", *RUN, "num_steps=20", "evaluation.patience=2"]
    run_ranks(1, run_here, overrides)
    start, _, end = capfd.readouterr().out.partition("evaluation.patience=2: the last 2 validations")
    for part in (start, end):
        assert "evaluation.leave_out_seen=false" in part
    assert "every target is an item that the user has seen before (60 of 60 valid targets" in start
    assert "NDCG@10 was 0 each time" in end
    quality = summary_of(tmp_path / "run")["quality"]
    assert quality["num_seen_test_targets"] == quality["num_test_users"] == 60


NEW_KEYS = ("num_samples", "lost_device_s", "trained_device_s", "flop", "possible_flop", "bests", "reached")
"""Of a checkpoint, that older versions did not write."""


def test_a_run_of_an_older_version_is_billed_from_its_checkpoint_on(store: str, tmp_path: Path):
    run_here(tiny_run(store, tmp_path, 4))
    (tmp_path / SESSIONS).unlink()
    (path,) = (tmp_path / "checkpoints").glob("step-00000004/progress.json")
    progress = {key: value for key, value in read_json(path).items() if key not in NEW_KEYS}
    write_json(path, progress | {"wall_s": 500.0, "device_s": 1000.0, "usd": 2.0, "kwh": 3.0})
    run_here(tiny_run(store, tmp_path, 6))
    summary = summary_of(tmp_path)
    cost = summary["cost"]
    assert [session["ended"] for session in cost["sessions"]] == ["before this record", "finished"]
    assert cost["device_hours"] * 3600 == pytest.approx(1000 + cost["sessions"][1]["device_s"])
    assert cost["usd"] > 2
    assert cost["lost_device_s"] == 0
    assert sum(cost["phases_s"].values()) == pytest.approx(cost["sessions"][1]["device_s"])
    tokens = summary["throughput"]["tokens"]
    assert summary["throughput"]["tokens_per_s_per_device"] < tokens / 1000, "what no phases are known of is training"
