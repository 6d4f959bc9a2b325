"""Names of runs side by side: what each of them is that another is not."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.runs.recorded_run import RecordedRun
from configs.flatten import is_among
from configs.load import VARIANT_GROUPS
from configs.overrides import as_typed

SEED = "seed"
_BY_VALUE = ("experiment", *VARIANT_GROUPS)
"""Keys whose values tell what they are by themselves: ``bce``, not ``loss=bce``."""
_NO_MATTER = (
    *("run_dir", "config_dir", "scratch_dir", "log_every_steps", "export", "recommend", "follow", "checkpoint"),
    *("data.log", "data.store", "data.version", "data.columns", "data.source", "data.memory_gib", "data.spill_dir"),
    *("data.engine", "data.spark_master", "data.prefetch_batches", "data.prefetch_mib", "nonfinite"),
    *("evaluation.batch_size", "evaluation.num_bootstrap_samples", "hardware.num_threads", "hardware.timeout_s"),
)
"""Keys that change neither what a run learns nor what that costs."""


def labels_of(runs: Sequence[RecordedRun]) -> list[str]:
    """A short name of each of ``runs``, all different, made of the keys that differ: ``hstu embedding_dim=64``.

    Runs that are the same in all that matters are told apart by their folders, and so is a run alone.
    """
    keys = [key for key in telling_keys(runs) if key != SEED]
    keys += [SEED] if SEED in telling_keys(runs) else []
    return distinct([label_of(values_of(run), keys) or run.name for run in runs], runs)


def telling_keys(runs: Sequence[RecordedRun]) -> list[str]:
    """The keys that differ among those of ``runs`` that have them. One that follows from keys that users typed, as a
    width that is made of another, is left out."""
    values = [values_of(run) for run in runs]
    known = dict.fromkeys(key for each in values for key in each)
    differing = [key for key in known if len({_text(each[key]) for each in values if key in each}) > 1]
    typed = {key for run in runs for key in run.typed}
    chosen = [key for key in differing if key in typed]
    return [key for key in differing if key in chosen or not _follows(key, chosen, values)]


def label_of(values: dict[str, Any], keys: Iterable[str]) -> str:
    """``values`` of ``keys`` in words; a key by its last part, where no other has the same."""
    keys = [key for key in keys if key in values]
    parts = [key.rpartition(".")[2] for key in keys]
    return " ".join(
        as_typed(values[key])
        if key in _BY_VALUE
        else f"{part if parts.count(part) == 1 else key}={_text(values[key])}"
        for key, part in zip(keys, parts, strict=True)
    )


def distinct(labels: Sequence[str], runs: Sequence[RecordedRun]) -> list[str]:
    """``labels``, with the run's folder behind each that occurs twice, or its place where folders share names."""
    names = [_named(label, run, run.name) for label, run in zip(labels, runs, strict=True)]
    places = [_named(label, run, run.place) for label, run in zip(labels, runs, strict=True)]
    return [
        label if labels.count(label) == 1 else name if names.count(name) == 1 else place
        for label, name, place in zip(labels, names, places, strict=True)
    ]


def _named(label: str, run: RecordedRun, name: str) -> str:
    return name if label == run.name else f"{label} ({name})"


def values_of(run: RecordedRun) -> dict[str, Any]:
    """The keys of ``run`` that may tell it from others, with their values."""
    experiment = {key: run.typed[key] for key in ("experiment",) if key in run.typed}
    return experiment | {key: value for key, value in run.keys.items() if not is_among(key, _NO_MATTER)}


def _follows(key: str, others: Sequence[str], values: Sequence[dict[str, Any]]) -> bool:
    """Whether the values of ``others`` say the value of ``key``."""
    found: dict[tuple[str, ...], str] = {}
    for each in values:
        if key in each:
            at = tuple(_text(each.get(other)) for other in others)
            if found.setdefault(at, _text(each[key])) != _text(each[key]):
                return False
    return bool(others)


def _text(value: Any) -> str:
    return as_typed(value)
