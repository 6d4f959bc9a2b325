"""What a run was ranked on and how: numbers of two protocols are not compared, and the difference is named."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.runs.recorded_run import RecordedRun
from configs.errors import ConfigError

_OF_SPLIT = {
    "global_time": (
        "data.global_time_valid",
        "data.global_time_test",
        "data.global_time_valid_fraction",
        "data.global_time_test_fraction",
    ),
    "cold_items": ("data.cold_items_fraction", "data.cold_items_seed"),
}
"""Further keys that say which events are the targets, by ``data.split``."""
CUT_OFFS = "cut-offs"
NOT_RECORDED = "not recorded"


def protocol_of(run: RecordedRun) -> dict[str, Any]:
    """What must be the same in two runs whose quality is compared, by name.

    The data's fingerprint, the split, what is done with seen items, the cut-offs of the metrics, and how many users
    were ranked.
    """
    quality, split = run.quality, run.keys.get("data.split", NOT_RECORDED)
    seen = quality.get("seen_left_out", run.keys.get("evaluation.leave_out_seen", NOT_RECORDED))
    return {
        "data.fingerprint": run.summary.get("data", {}).get("fingerprint", NOT_RECORDED),
        "data.split": split,
        **{key: run.keys[key] for key in _OF_SPLIT.get(split, ()) if key in run.keys},
        "evaluation.leave_out_seen": seen,
        CUT_OFFS: cut_offs_of(quality),
        "test users": quality.get("num_test_users", NOT_RECORDED),
    }


def cut_offs_of(quality: dict[str, Any]) -> list[int]:
    """The K of metrics such as ``ndcg@10``, in order."""
    found = {name.rpartition("@")[2] for name in quality.get("test", {}) if "@" in name}
    return sorted(int(each) for each in found if each.isdecimal())


def differences(first: RecordedRun, second: RecordedRun) -> Iterator[str]:
    """What differs in the protocols of two runs, each as ``data.split is leave_one_out, and here global_time``."""
    left, right = protocol_of(first), protocol_of(second)
    names = dict.fromkeys((*left, *right))
    yield from differing({name: (left.get(name, NOT_RECORDED), right.get(name, NOT_RECORDED)) for name in names})


def differing(values: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """In words, each name of ``values`` whose two values are not the same."""
    for name, (there, here) in values.items():
        if there != here:
            yield f"{name} is {_short(there)} there and {_short(here)} here"


def groups_of(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """``runs`` in groups of one protocol, the largest first, else in their order."""
    groups: list[list[RecordedRun]] = []
    for run in runs:
        group = next((each for each in groups if protocol_of(each[0]) == protocol_of(run)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return sorted(groups, key=len, reverse=True)


def require_one_protocol(runs: Sequence[RecordedRun]) -> None:
    """Raise :class:`ConfigError`, which names two runs and the difference, where not all have the same protocol."""
    for run in runs[1:]:
        if found := list(differences(runs[0], run)):
            raise ConfigError(
                f"{run.place} was not ranked as {runs[0].place} was, so that their numbers cannot be compared: "
                f"{'; '.join(found)}"
            )


def _short(value: Any) -> str:
    """A fingerprint by its beginning, a list as it is typed, a split by its name and what belongs to it."""
    if isinstance(value, dict):
        return " ".join(str(each) if key == "name" else f"{key}={each}" for key, each in value.items())
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
