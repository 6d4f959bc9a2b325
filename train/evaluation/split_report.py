"""What a split gives: events and users of each part, targets that nobody may rank, and times far from the rest."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from configs.schema import DataConfig, RunConfig, Split
from configs.schema.split import global_time_dates
from data_pipeline.split import (
    SplitRule,
    Subset,
    event_time_boundaries,
    split_rule,
    targets_in,
    train_lengths,
    training_view,
)
from data_pipeline.store.event_times import Outliers
from data_pipeline.store.history_reader import CHUNK_USERS, Histories, HistoryReader
from data_pipeline.store.manifest import Manifest
from data_pipeline.training_events import user_of_event

MAX_EVENTS = 20_000_000
"""Of a larger store about so many events are counted, those of users in equal distances: a start waits for it."""
TIED_SHARE = 0.001
"""From this share of events on that have the time of a split point, a run says so."""
SEEN_SHARE = 0.2
"""From this share of targets on that the user has seen, a run says so."""


@dataclass(slots=True)
class SplitReport:
    """Counts of the users that were looked at; ``is_sample``: not all of the store's."""

    rule: SplitRule
    is_sample: bool
    num_users: int = 0
    num_train_users: int = 0
    """Users with an event for training."""
    num_events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("train", "valid", "test"), 0))
    num_targets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("valid", "test"), 0))
    num_seen_targets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("valid", "test"), 0))
    """Targets that are an item of the user's history before them."""

    def lines(self, config: RunConfig, manifest: Manifest) -> list[str]:
        """What a person should know before training; one line each."""
        data = config.data
        lines = [self._shares()]
        if self.rule.split is Split.GLOBAL_TIME and global_time_dates(data) is None:
            found = event_time_boundaries(data, manifest)
            tied = [
                each.num_tied for each in found.boundaries if each.num_tied > 1 + TIED_SHARE * manifest.num_events
            ]
            if tied:
                lines.append(f"note: {sum(tied):,} events have the time of a split point; they stay together")
            if found.outliers is not None:
                lines.append(_outliers_line(found.outliers, manifest))
        if config.evaluation.leave_out_seen and (warning := seen_warning(self.num_seen_targets, self.num_targets)):
            lines.append(warning)
        return lines

    def _shares(self) -> str:
        total = max(sum(self.num_events.values()), 1)
        shares = {name: f"{number:,} events ({number / total:.1%})" for name, number in self.num_events.items()}
        points = [self.rule.valid_start_ms, self.rule.test_start_ms]
        valid, test = [f" from {_time(point)} on" if self.rule.split is Split.GLOBAL_TIME else "" for point in points]
        if self.rule.split is Split.NONE:
            return (
                f"split none: all {self.num_events['train']:,} events of {self.num_train_users:,} users are for "
                f"training; nothing is held out, so the model has no quality, and no evaluation.patience ends the run"
            )
        of = f", of {self.num_users:,} users that were looked at" if self.is_sample else ""
        return (
            f"split {self.rule.split.value}{of}: train {shares['train']} of {self.num_train_users:,} users, "
            f"valid{valid} {shares['valid']}, {self.num_targets['valid']:,} targets, "
            f"test{test} {shares['test']}, {self.num_targets['test']:,} targets"
        )


def split_report(config: DataConfig, manifest: Manifest, heartbeat: Callable[[], None] = lambda: None) -> SplitReport:
    """Count the parts of the split of ``config``; ``heartbeat`` is called from time to time. Not collective.

    Reads the histories of the store, of a large one an even sample.
    """
    rule = split_rule(config, manifest)
    stride = max(-(-manifest.num_events // MAX_EVENTS), 1)
    report = SplitReport(rule, is_sample=stride > 1)
    for chunk in _chunks(config.store, manifest, stride):
        heartbeat()
        _count(report, chunk)
    return report


def seen_warning(num_seen: dict[str, int], num_targets: dict[str, int]) -> str:
    """One line where a large share of the targets was seen before, so that none can be found; else empty."""
    shares = {name: num_seen[name] / max(num_targets[name], 1) for name in num_targets}
    if max(shares.values()) < SEEN_SHARE:
        return ""
    counts = ", ".join(f"{num_seen[name]:,} of {num_targets[name]:,} {name} targets" for name in num_targets)
    what = "every target is an item" if min(shares.values()) == 1 else "many targets are items"
    return (
        f"warning: {what} that the user has seen before ({counts}), and seen items are no candidates, so that the "
        f"model cannot find them; where people come back to the same items set evaluation.leave_out_seen=false"
    )


def _chunks(store: str, manifest: Manifest, stride: int) -> Iterator[Histories]:
    """Every ``stride``-th stretch of ``CHUNK_USERS`` users."""
    reader = HistoryReader(store, manifest)
    for start in range(0, manifest.num_users, CHUNK_USERS * stride):
        yield reader.read(start, min(start + CHUNK_USERS, manifest.num_users))


def _count(report: SplitReport, chunk: Histories) -> None:
    lengths, view = np.diff(chunk.offsets), training_view(report.rule, chunk)
    num_train = train_lengths(report.rule, view.offsets, view.timestamp)
    report.num_users += len(lengths)
    report.num_train_users += int((num_train > 0).sum())
    report.num_events["train"] += int(num_train.sum())
    num_test = _num_test_events(report.rule, chunk)
    report.num_events["test"] += num_test
    report.num_events["valid"] += len(chunk.item) - num_test - int(num_train.sum())
    for subset in Subset:
        position = targets_in(report.rule, subset, chunk)
        report.num_targets[subset.value] += int((position >= 0).sum())
        report.num_seen_targets[subset.value] += _num_seen(chunk, position)


def _num_test_events(rule: SplitRule, chunk: Histories) -> int:
    if rule.split is Split.GLOBAL_TIME:
        return int((chunk.timestamp >= rule.test_start_ms).sum())
    return int((targets_in(rule, Subset.TEST, chunk) >= 0).sum())


def _num_seen(chunk: Histories, position: np.ndarray) -> int:
    """Users whose target, at ``position`` [B] of the history, stands in it before as well."""
    has_target = position >= 0
    target = np.full(len(position), -1, np.int64)
    target[has_target] = chunk.item[(chunk.offsets[:-1] + position)[has_target]]
    user = user_of_event(chunk.offsets)
    place = np.arange(len(chunk.item)) - chunk.offsets[user]
    is_seen = (chunk.item == target[user]) & (place < position[user])
    return len(np.unique(user[is_seen]))


def _outliers_line(outliers: Outliers, manifest: Manifest) -> str:
    parts = []
    if outliers.num_early:
        parts.append(f"{outliers.num_early:,} from {_time(outliers.earliest_ms)} on")
    if outliers.num_late:
        parts.append(f"{outliers.num_late:,} up to {_time(outliers.latest_ms)}")
    return (
        f"note: {outliers.num_early + outliers.num_late:,} of {manifest.num_events:,} events are far from the rest, "
        f"which reaches from {_time(outliers.first_ms)} to {_time(outliers.last_ms)}: {', '.join(parts)}; wrong "
        f"clocks? `shardrec prepare` leaves them out by data.source.earliest_time and data.source.latest_time"
    )


def _time(time_ms: int) -> str:
    """``2024-01-31``, with the time of day where it is not midnight."""
    try:
        time = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return time.strftime("%Y-%m-%d") if time_ms % 86_400_000 == 0 else time.strftime("%Y-%m-%d %H:%M:%S")
