"""``summary.json``: quality with intervals and baselines, throughput, cost; and the table at the end of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from configs.atomic_files import write_json
from configs.load import variants_of
from configs.schema import RunConfig, Split
from data_pipeline.cold_items import WARM
from data_pipeline.split import Subset, split_rule
from data_pipeline.store.manifest import Manifest, identity_digests
from train.distributed.heartbeat import heartbeating
from train.evaluation.baselines import baseline_quality
from train.evaluation.bootstrap import bootstrap_intervals
from train.evaluation.details import details_lines, details_of
from train.evaluation.ending import ended_by
from train.evaluation.lists import ListRecorder
from train.evaluation.metrics import quality_of
from train.evaluation.oracle import oracle_report
from train.evaluation.protocol import target_ranks_of
from train.evaluation.ranking import StopRequested, both
from train.evaluation.ratings import rating_errors
from train.evaluation.split_report import seen_warning
from train.evaluation.target_recorder import TargetRecorder
from train.evaluation.verdict import verdict_of
from train.progress import RunProgress
from train.state import TrainState

Summary = dict[str, Any]


def summarise(
    state: TrainState,
    config: RunConfig,
    manifest: Manifest,
    progress: RunProgress,
    num_steps: int,
    heartbeat: Callable[[], None] = lambda: None,
    is_stop_requested: Callable[[], bool] = lambda: False,
    recorder: TargetRecorder | None = None,
) -> Summary:
    """Rank the test events with ``state`` and gather all that a run tells; without held-out events there is no
    quality. Collective; see :func:`quality_report`, also for the ``recorder``."""
    world_size = state.collectives.world_size
    quality: Summary = {}
    if config.data.split is not Split.NONE:
        found = quality_report(state, config, manifest, heartbeat, is_stop_requested, recorder)
        quality = {"quality": found | {"valid": progress.quality}}
    return {
        **variants_of(config),
        **quality,
        "throughput": {
            "tokens": progress.num_tokens,
            "wall_s": progress.wall_s,
            "tokens_per_s_per_device": progress.num_tokens / max(progress.trained_device_s, 1e-9),
            "token_imbalance": progress.padded_tokens / max(progress.num_tokens, 1),
        },
        "time_to_quality": progress.bests,
        "data": {
            **{key.removeprefix("data."): digest for key, digest in identity_digests(manifest).items()},
            "version": manifest.version,
            "num_users": manifest.num_users,
            "num_items": manifest.num_items,
        },
        "world_size": world_size,
        "steps": num_steps,
        "ended_by": ended_by(config, progress, num_steps, state.schedule.num_steps),
        **target_report(config, progress),
        "best_step": progress.best_step,
        "best_by": config.evaluation.metric,
        **({"warm_start": progress.warm_start} if progress.warm_start else {}),
        "bad_steps": progress.num_nonfinite_steps,
        "clipped_steps": progress.num_clipped_steps,
        "rollbacks": progress.num_rollbacks,
    }


def target_report(config: RunConfig, progress: RunProgress) -> Summary:
    """Whether ``train.target`` was reached, and at what cost; nothing where there is none."""
    target = config.train.target_quality
    if target is None:
        return {}
    is_reached = progress.has_reached(target)
    found = progress.reached if is_reached else {}
    return {"target": {**found, "metric": target.metric, "target": target.value, "is_reached": is_reached}}


def quality_report(
    state: TrainState,
    config: RunConfig,
    manifest: Manifest,
    heartbeat: Callable[[], None] = lambda: None,
    is_stop_requested: Callable[[], bool] = lambda: False,
    recorder: TargetRecorder | None = None,
) -> Summary:
    """Test quality, its 95 % intervals, the baselines, a verdict, and for a synthetic log the oracle. Collective.

    Where the targets stand is left in ``recorder``. Rank 0 counts alone, calls ``heartbeat`` meanwhile, and gives the
    others nothing. Raises :class:`StopRequested` where a rank was asked to stop: on all ranks while they rank, on
    rank 0 while it counts.
    """
    recorder = recorder or TargetRecorder(state.collectives.rank)
    lists = ListRecorder(manifest.num_items, config.evaluation.leave_out_seen, state.collectives)
    on_ranked = both(recorder, lists) if config.evaluation.lists else recorder
    ranks = target_ranks_of(state, config, manifest.num_items, Subset.TEST, is_stop_requested, on_ranked=on_ranked)
    ratings: Summary = {}
    if config.label:
        errors = rating_errors(state, config, manifest, Subset.TEST, is_stop_requested)
        ratings = {"ratings": {"label": config.label, **errors}}
    targets = recorder.targets()
    if targets is None:
        return {}

    def go_on() -> None:
        if is_stop_requested():
            raise StopRequested

    with heartbeating(heartbeat):
        made = lists.lists() if config.evaluation.lists else None
        report = report_of_ranks(ranks, config, go_on=go_on) | ratings
        report |= details_of(targets, config, manifest, go_on, made)
    cold = split_rule(config.data, manifest).cold
    if cold is not None:
        report |= {"by_items": quality_of_cold_and_warm(targets.rank, cold[targets.item] != WARM)}
    return report


def quality_of_cold_and_warm(ranks: np.ndarray, is_cold: np.ndarray) -> Summary:
    """Quality over the targets [N] that are items without training events, and over the others; each where there are
    some."""
    parts = {"cold": ranks[is_cold], "warm": ranks[~is_cold]}
    return {name: {"num_targets": len(some), **quality_of(some)} for name, some in parts.items() if len(some)}


def report_of_ranks(
    ranks: np.ndarray,
    config: RunConfig,
    heartbeat: Callable[[], None] = lambda: None,
    go_on: Callable[[], None] = lambda: None,
    *,
    num_unranked: int = 0,
) -> Summary:
    """What :func:`quality_report` tells of ``ranks`` [N], of which ``num_unranked`` are misses of targets that the
    model could not rank. Not collective; ``go_on`` may raise."""
    with heartbeating(heartbeat):
        return _report_of(ranks, config, go_on, num_unranked)


def _report_of(ranks: np.ndarray, config: RunConfig, go_on: Callable[[], None], num_unranked: int) -> Summary:
    intervals = bootstrap_intervals(ranks, config.evaluation.num_bootstrap_samples, config.seed)
    report: Summary = {
        "test": quality_of(ranks),
        "test_ci95": {key: list(interval) for key, interval in intervals.items()},
        "num_test_users": len(ranks),
        "seen_left_out": config.evaluation.leave_out_seen,
        "num_seen_test_targets": int(np.isinf(ranks).sum()) - num_unranked,  # no other target has no rank
        "baselines": baseline_quality(config.data, Subset.TEST, config.evaluation, go_on),
    }
    return {**report, "verdict": verdict_of(report), **oracle_report(config)}


def write_summary(summary: Summary, path: Path) -> None:
    """Write it whole, with its sum: a reader never sees half of it."""
    write_json(path, summary)


def print_table(summary: Summary) -> None:
    """Model, baselines and oracle side by side, then speed and cost."""
    if "quality" in summary:
        print_quality(summary["quality"])
    throughput, cost = summary["throughput"], summary["cost"]
    print(
        f"\n{summary['steps']} steps{_best_of(summary)} on {summary['world_size']} devices in "
        f"{throughput['wall_s']:.0f} s: {throughput['tokens_per_s_per_device']:,.0f} tokens/s per device "
        f"(the fullest has {throughput['token_imbalance']:.2f} times the mean), "
        f"{cost['device_hours']:.3f} device-hours, {cost['usd']:.4f} USD, {cost['kwh']:.4f} kWh"
    )
    if "phases_s" in cost:  # not of an older version
        print(_where_time_went(cost))
    if "final_model" in summary:
        print_final_model(summary["final_model"])


def _where_time_went(cost: Summary) -> str:
    """The shares of the phases, the largest first, and what was lost."""
    total = max(sum(cost["phases_s"].values()), 1e-9)
    shares = sorted(cost["phases_s"].items(), key=lambda each: -each[1])
    told = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in shares if seconds >= 0.005 * total)
    lost = f"; {cost['lost_device_s']:,.0f} device-seconds were lost to kills" if cost["lost_device_s"] else ""
    used = f"; {cost['mfu']:.1%} of the possible arithmetic" if cost["mfu"] else ""
    return f"time: {told}{used}{lost}"


def _best_of(summary: Summary) -> str:
    return f" (best {summary['best_step']})" if "quality" in summary else ", nothing held out,"


def _not_known(found: dict[str, int]) -> str:
    return (
        f"the model does not know {found['num_new_item_targets']:,} of the targets, new items, which are misses, nor "
        f"{found['num_unknown_events']:,} of {found['num_events']:,} events before the targets; "
        f"{found['num_users_without_known_events']:,} users have no event that it knows, misses as well"
    )


def print_final_model(final: Summary) -> None:
    """What the final fit has made, beside the model that was selected."""
    on = "training and validation events" if final["trained_on"] == "validation" else "all events"
    told = f"final model: {final['steps']} steps on {on}, {final['device_s']:.0f} device-seconds"
    if "quality" in final:
        low, high = final["quality"]["test_ci95"]["ndcg@10"]
        test = final["quality"]["test"]["ndcg@10"]
        print(f"{told}; its NDCG@10 on the test events is {test:.4f} ({low:.4f} to {high:.4f})")
    else:
        print(f"{told}; the figures above are of the selected model, since no event is held out of the final one")


def print_quality(quality: Summary) -> None:
    """The rows of the table that speak of quality."""
    low, high = quality["test_ci95"]["ndcg@10"]
    seen = "left out" if quality["seen_left_out"] else "kept"
    print(f"\ntest, {quality['num_test_users']:,} users, whole catalogue, seen items {seen}")
    print(f"{'':16}{'HR@10':>8}{'NDCG@10':>10}{'MRR@10':>9}")
    for name, row in {"model": quality["test"], **quality["baselines"]}.items():
        interval = f"   95 % interval of NDCG@10: {low:.4f} to {high:.4f}" if name == "model" else ""
        print(f"{name:16}{row['hr@10']:8.4f}{row['ndcg@10']:10.4f}{row['mrr@10']:9.4f}{interval}")
    for name, row in quality.get("by_items", {}).items():
        label = f"{name} items"
        print(
            f"{label:16}{row['hr@10']:8.4f}{row['ndcg@10']:10.4f}{row['mrr@10']:9.4f}   of the model, "
            f"{row['num_targets']:,} targets"
        )
    if "oracle_ndcg@10" in quality:
        share = quality["test"]["ndcg@10"] / quality["oracle_ndcg@10"]
        print(f"{'oracle':16}{'':8}{quality['oracle_ndcg@10']:10.4f}   the model reaches {share:.0%} of the possible")
    for line in details_lines(quality):
        print(line)
    if "ratings" in quality:
        found = quality["ratings"]
        scored = "".join(f", {name.upper()} {found[name]:.4f}" for name in ("auc", "log_loss") if name in found)
        print(f"{found['label']} of the same events: RMSE {found['rmse']:.4f}, MAE {found['mae']:.4f}{scored}")
    if "not_known" in quality:
        print(_not_known(quality["not_known"]))
    if "verdict" in quality:  # not of an older version
        print(quality["verdict"]["text"])
    num_seen = quality.get("num_seen_test_targets", 0)
    if warning := seen_warning({"test": num_seen}, {"test": quality["num_test_users"]}):
        print(warning)
