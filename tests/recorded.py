"""Runs as their folders record them, written by hand: for what reads runs and needs none to be trained."""

import json
from pathlib import Path
from typing import Any

from configs.atomic_files import write_json, write_text
from configs.load import load_config, resolved_yaml, variants_of

METRICS = ("hr@10", "ndcg@10", "mrr@10")


def write_run(
    folder: Path,
    overrides: list[str] | None = None,
    *,
    ndcg: float = 0.2,
    half_width: float = 0.01,
    usd: float = 0.01,
    summary: dict[str, Any] | None = None,
) -> str:
    """A run of ``overrides`` that has ended with ``ndcg`` and cost ``usd``; returns its path.

    ``summary`` is laid over its own, of which a value of None takes a key away.
    """
    words = [*(overrides or []), f"run_dir={folder}", "data.store=stores/tiny", "hardware.num_ranks=1"]
    config = load_config(words)
    folder.mkdir(parents=True)
    write_text(folder / "config.yaml", resolved_yaml(config))
    write_text(folder / "overrides.txt", "".join(f"{word}\n" for word in words))
    rows = [{"step": step, "elapsed_s": 10.0 * step, "loss": 7 - step / 10} for step in (1, 2, 3)]
    rows += [{"step": step, "elapsed_s": 10.0 * step, "valid/ndcg@10": ndcg * step / 3} for step in (1, 2, 3)]
    lines = sorted(rows, key=lambda row: row["step"])
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    (folder / "environment.json").write_text(json.dumps([{"cpu": "a processor", "versions": {"torch": "2.13.0"}}]))
    own = _summary(variants_of(config), ndcg, half_width, usd)
    own["quality"]["seen_left_out"] = config.evaluation.leave_out_seen
    write_json(folder / "summary.json", _laid_over(own, summary or {}))
    return str(folder)


def _summary(variants: dict[str, str], ndcg: float, half_width: float, usd: float) -> dict[str, Any]:
    return {
        **variants,
        "quality": {
            "test": dict.fromkeys(METRICS, ndcg),
            "test_ci95": {name: [ndcg - half_width, ndcg + half_width] for name in METRICS},
            "num_test_users": 900,
            "baselines": {"popular": dict.fromkeys(METRICS, 0.05), "markov": dict.fromkeys(METRICS, 0.08)},
            "verdict": {"overall": "above", "text": "the model is above every baseline"},
            "valid": dict.fromkeys(METRICS, ndcg),
        },
        "throughput": {"tokens": 30_000, "wall_s": 30.0, "tokens_per_s_per_device": 1000.0, "token_imbalance": 1.0},
        "cost": {"device_hours": usd / 0.05, "usd": usd, "kwh": usd * 0.4},
        "data": {"fingerprint": "f" * 64, "version": 1, "num_users": 900, "num_items": 1000},
        "world_size": 1,
        "steps": 3,
        "best_step": 3,
        "best_by": "ndcg@10",
    }


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = _laid_over(found[key], value)
        else:
            found[key] = value
    return found
