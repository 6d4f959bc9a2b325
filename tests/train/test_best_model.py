"""Which model is the best, and when a run ends: by the figure of the validation that ``evaluation.metric`` names."""

import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from runs import run_here, tiny_run
from train.progress import RunProgress


@pytest.mark.parametrize("metric", ["loss", "mrr", "hr@3"])
def test_the_best_step_and_the_end_of_a_run_follow_the_metric_that_is_named(store: str, tmp_path: Path, metric: str):
    patience = 2
    overrides = [*tiny_run(store, tmp_path / "run", num_steps=30), f"evaluation.metric={metric}"]
    run_here([*overrides, f"evaluation.patience={patience}", "optimizer.lr=0.05", "optimizer.table_lr=0.5"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = {row["step"]: row[f"valid/{metric}"] for row in rows if f"valid/{metric}" in row}
    best, last = expected_end(values, patience, less_is_better=metric == "loss")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best_by"] == metric
    assert (summary["best_step"], summary["steps"]) == (best, last)
    assert summary["quality"]["valid"][metric] == values[best]


def expected_end(values: dict[int, float], patience: int, *, less_is_better: bool) -> tuple[int, int]:
    """The best step and the last one of a run whose validations gave ``values``, by step."""
    best = last = missed = 0
    for step, value in values.items():
        last = step
        is_better = not best or (value < values[best] if less_is_better else value > values[best])
        best, missed = (step, 0) if is_better else (best, missed + 1)
        if missed == patience:
            break
    return best, last


def test_the_first_validation_is_the_best_so_far_whatever_its_value():
    for metric, value in {"loss": 1e30, "ndcg@10": 0.0}.items():
        progress = RunProgress()
        assert progress.record_validation(2, {metric: value}, metric)
        assert not progress.record_validation(4, {metric: value}, metric), "as good is not better"
        assert progress.best_step == 2


@pytest.mark.parametrize("metric", ["auc", "ndcg", "ndcg@0", "loss@10", "ndcg@1e9", ""])
def test_an_unknown_metric_is_refused_by_its_key(metric: str):
    with pytest.raises(ConfigError, match=r"evaluation\.metric=.* is unknown; set it to loss, mrr, or one of"):
        load_config([f"evaluation.metric={metric}"])


def test_names_of_metrics_may_be_written_in_capitals():
    assert load_config(["evaluation.metric=NDCG@10"]).evaluation.metric == "ndcg@10"
