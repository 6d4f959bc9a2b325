"""What a follow found: a table with a row a window, a curve, and in words what the updates were worth. No torch."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from configs.atomic_files import write_atomically
from train.follow.curve import curve
from train.follow.journey import NOT_UPDATED, Journey

METRIC = "ndcg@10"
BASELINES = ("popular", "recent_popular", "markov")
TABLE, CURVE = "table", "curve.txt"
MEASURED = ("device_s", "usd")
"""Ends of the names of columns that are measured: all others are the same however often it is started."""


def write_table(journey: Journey, rows: list[dict[str, Any]]) -> None:
    """Write ``table.csv``, ``table.parquet`` and ``curve.txt``, and print the curve and the summary in words."""
    frame, folder = table_of(journey, rows), journey.folder
    _write(frame, folder)
    shown = "\n".join([*curve(_series(journey, frame)), "", *summary_words(journey, rows), ""])
    write_atomically(folder / CURVE, shown)
    print(f"\n{shown}\nwrote {folder / TABLE}.csv, {TABLE}.parquet and {CURVE}", flush=True)


def table_of(journey: Journey, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A row a window; no quality where nobody was ranked, and no cost where nothing was trained after it."""
    return pl.DataFrame([_flat(journey, row) for row in rows], infer_schema_length=None)


def line_of(journey: Journey, row: dict[str, Any]) -> str:
    """A window as one line of the printed table."""
    begin = f"{row['window']:>4}  {row['start']:<16} {row['events']:>8,} events"
    spent = sum(cost["device_s"] for cost in row["updates"].values())
    cost = f"  updates {spent:.1f} device-s" if row["updates"] else ""
    if not row["quality"]:
        return f"{begin}, nobody to rank{cost}"
    found = {model: figures["test"][METRIC] for model, figures in row["quality"].items()}
    baselines = _first(row)["baselines"]
    found |= {name: baselines[name][METRIC] for name in BASELINES}
    figures = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
    return f"{begin} {_first(row)['num_test_users']:>7,} targets  NDCG@10: {figures}{cost}"


def _write(frame: pl.DataFrame, folder: Path) -> None:
    write_atomically(folder / f"{TABLE}.csv", frame.write_csv())
    content = io.BytesIO()
    frame.write_parquet(content)
    write_atomically(folder / f"{TABLE}.parquet", content.getvalue())


def _flat(journey: Journey, row: dict[str, Any]) -> dict[str, Any]:
    quality = row["quality"]
    first = _first(row) if quality else {}
    flat = {key: row[key] for key in ("window", "start", "end", "events", "new_users", "new_items")}
    flat["targets"] = first.get("num_test_users", 0)
    flat["seen_targets"] = first.get("num_seen_test_targets", 0)
    for model in journey.models:
        found = quality.get(model)
        low, high = found["test_ci95"][METRIC] if found else (None, None)
        flat[f"{model}_{METRIC}"] = found["test"][METRIC] if found else None
        flat |= {f"{model}_{METRIC}_low": low, f"{model}_{METRIC}_high": high}
        flat[f"{model}_hr@10"] = found["test"]["hr@10"] if found else None
        flat[f"{model}_unknown_targets"] = found["not_known"]["num_new_item_targets"] if found else None
    for name in BASELINES:
        for metric in (METRIC, "hr@10"):
            flat[f"{name}_{metric}"] = first["baselines"][name][metric] if first else None
    for model in journey.models:
        if model != NOT_UPDATED:
            cost = row["updates"].get(model)
            flat[f"{model}_updated"] = cost is not None
            flat |= {f"{model}_{key}": cost[key] if cost else None for key in MEASURED}
    return flat


def _first(row: dict[str, Any]) -> dict[str, Any]:
    """Figures that every model shares: those of the one that is not updated."""
    found: dict[str, Any] = row["quality"][NOT_UPDATED]
    return found


def _series(journey: Journey, frame: pl.DataFrame) -> dict[str, list[float | None]]:
    names = [*journey.models, *BASELINES]
    return {name: frame[f"{name}_{METRIC}"].to_list() for name in names}


def summary_words(journey: Journey, rows: list[dict[str, Any]]) -> list[str]:
    """For each model, what its updates gained over the first model, at which cost; and what each more frequent one
    gains over the next."""
    ranked = [row for row in rows if row["quality"]]
    if not ranked:
        return ["No window has a user with a history to rank: nothing can be said of updates."]
    total = sum(_first(row)["num_test_users"] for row in ranked)
    lines = [
        f"Over {len(ranked)} windows with {total:,} targets the model that is not updated has NDCG@10 "
        f"{_mean(ranked, NOT_UPDATED):.4f}; "
        + ", ".join(f"{name} {_mean_of_baseline(ranked, name):.4f}" for name in BASELINES)
        + "."
    ]
    rarest_first = sorted(journey.config.follow.update_every, reverse=True)
    lines += [_worth(journey, rows, ranked, every) for every in rarest_first]
    lines += [_step(journey, rows, ranked, *pair) for pair in pairwise(rarest_first)]
    baseline = max(BASELINES, key=lambda name: _mean_of_baseline(ranked, name))
    if _mean_of_baseline(ranked, baseline) > max(_mean(ranked, model) for model in journey.models):
        lines.append(f"No model is as good as {baseline}: look at the model and at num_epochs before the updates.")
    return lines


def _worth(journey: Journey, rows: list[dict[str, Any]], ranked: list[dict[str, Any]], every: int) -> str:
    model, name, costs = f"every_{every}", _every(journey, every), _scored_costs(rows, every)
    if not costs:
        return f"Updated every {name}: no update was scored."
    before, after = _mean(ranked, NOT_UPDATED), _mean(ranked, model)
    hits = sum(_hits(row, model) - _hits(row, NOT_UPDATED) for row in ranked)
    hours, usd = _spent(costs)
    gains = [_ndcg(row, model) - _ndcg(row, NOT_UPDATED) for row in ranked]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return (
        f"Updated every {name}: NDCG@10 {after:.4f}, {after - before:+.4f}; better in {better} windows, worse in "
        f"{worse}; {hits:+,} hits among the first 10. {len(costs)} updates took {hours:.4f} device-hours and "
        f"{usd:.4f} USD: {(after - before) / hours:+.3f} NDCG@10 and {hits / hours:+,.0f} hits per device-hour."
    )


def _step(
    journey: Journey, rows: list[dict[str, Any]], ranked: list[dict[str, Any]], rarer: int, oftener: int
) -> str:
    """What the more frequent of two models gains over the other, and what that costs more."""
    gain = _mean(ranked, f"every_{oftener}") - _mean(ranked, f"every_{rarer}")
    spent = [sum(cost["device_s"] for cost in _scored_costs(rows, every)) / 3600 for every in (rarer, oftener)]
    return (
        f"From every {_every(journey, rarer)} to every {_every(journey, oftener)}: {gain:+.4f} NDCG@10 for "
        f"{spent[1] - spent[0]:+.4f} device-hours."
    )


def _every(journey: Journey, every: int) -> str:
    unit = journey.config.follow.window.value
    return unit if every == 1 else f"{every} {unit}s"


def _scored_costs(rows: list[dict[str, Any]], every: int) -> list[dict[str, float]]:
    """Of each update but that after the last window, which nothing has scored."""
    model = f"every_{every}"
    return [row["updates"][model] for row in rows[:-1] if model in row["updates"]]


def _spent(costs: list[dict[str, float]]) -> tuple[float, float]:
    """Device-hours, of which some always pass, and USD."""
    return max(sum(cost["device_s"] for cost in costs), 1e-3) / 3600, sum(cost["usd"] for cost in costs)


def _mean(ranked: list[dict[str, Any]], model: str) -> float:
    """NDCG@10 over all targets of all windows."""
    return _over_targets([(row, _ndcg(row, model)) for row in ranked])


def _mean_of_baseline(ranked: list[dict[str, Any]], name: str) -> float:
    return _over_targets([(row, float(_first(row)["baselines"][name][METRIC])) for row in ranked])


def _over_targets(values: list[tuple[dict[str, Any], float]]) -> float:
    numbers = [int(_first(row)["num_test_users"]) for row, _ in values]
    return sum(number * value for number, (_, value) in zip(numbers, values, strict=True)) / sum(numbers)


def _ndcg(row: dict[str, Any], model: str) -> float:
    return float(row["quality"][model]["test"][METRIC])


def _hits(row: dict[str, Any], model: str) -> int:
    found = row["quality"][model]
    return round(found["test"]["hr@10"] * found["num_test_users"])
