"""One run as its folder records it: its keys, its summary, its history. Needs no torch."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from configs.atomic_files import parse_json_with_sum, parse_text_with_sum
from configs.errors import ConfigError, DataError
from configs.overrides import as_typed, key_of
from configs.paths import checked_path
from configs.saved_run import CONFIG, compose_saved, saved_keys
from configs.schema import RunConfig
from data_pipeline.store.paths import AnyPath, path_of
from train.run_dir.environment import ENVIRONMENT
from train.run_dir.identity import OVERRIDES
from train.run_dir.metrics_file import NAME as METRICS

SUMMARY = "summary.json"
RANKS = "ranks.parquet"
SWEEP = "sweep.parquet"
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that has ended, as :func:`read_run` found it."""

    place: str
    """Its folder or URL, as the user named it."""
    keys: dict[str, Any]
    """Every key of the run by its dotted name, with ``model``, ``loss`` and ``optimizer`` for the variants."""
    typed: dict[str, str]
    """The keys that the user set and what he typed, in his order."""
    summary: dict[str, Any]
    """``summary.json``: what it lacks, a run of another version or kind did not record."""
    history: list[dict[str, Any]]
    """The lines of ``metrics.jsonl`` in order: ``step``, ``elapsed_s``, ``loss`` or ``valid/ndcg@10`` and more."""
    num_unreadable_lines: int
    """Of ``metrics.jsonl``; a torn last line, as a kill leaves it, is not counted."""
    environment: list[dict[str, Any]]
    """What each session ran on; empty where it was not recorded."""
    has_ranks: bool
    """Whether ``ranks.parquet`` is there, the rank of every target by user."""

    @property
    def path(self) -> AnyPath:
        """The folder of the run."""
        return path_of(self.place)

    @property
    def ranks_path(self) -> AnyPath:
        """Where the rank of every target is; see :attr:`has_ranks`."""
        return self.path / RANKS

    @property
    def name(self) -> str:
        """The last part of :attr:`place`."""
        return self.place.rstrip("/").rpartition("/")[2] or self.place

    @property
    def quality(self) -> dict[str, Any]:
        """What ``summary.json`` says of quality; empty where no event was held out."""
        return dict(self.summary.get("quality") or {})

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Quality of each baseline on the same targets, by its name."""
        return dict(self.quality.get("baselines") or {})

    def config(self) -> RunConfig:
        """The run as today's schema has it; :class:`ConfigError` where that does not know one of its keys."""
        shown = self.path / CONFIG
        text = _read(shown, lambda content: parse_text_with_sum(content, shown))
        return compose_saved(text, shown, [f"run_dir={as_typed(self.place)}"])


def read_run(place: str) -> RecordedRun:
    """The run in the folder or behind the URL ``place``.

    Raises :class:`ConfigError` where there is no run, or one that has not ended, and :class:`DataError` for a file
    that cannot be read; both name it.
    """
    place = checked_path("RUN", place)
    folder = path_of(place)
    _require_ended(place, folder)
    keys = _read(folder / CONFIG, lambda content: _keys_of(content, folder / CONFIG))
    history, num_unreadable_lines = list[dict[str, Any]](), 0
    if _is_file(folder / METRICS):
        history, num_unreadable_lines = _read(folder / METRICS, _history_of)
    return RecordedRun(
        place=place,
        keys=keys,
        typed=_read(folder / OVERRIDES, _typed_of) if _is_file(folder / OVERRIDES) else {},
        summary=_read(folder / SUMMARY, lambda content: parse_json_with_sum(content, folder / SUMMARY)),
        history=history,
        num_unreadable_lines=num_unreadable_lines,
        environment=_read(folder / ENVIRONMENT, _sessions_of) if _is_file(folder / ENVIRONMENT) else [],
        has_ranks=_is_file(folder / RANKS),
    )


def _require_ended(place: str, folder: AnyPath) -> None:
    if not _is_file(folder / CONFIG):
        raise ConfigError(f"{place} {_what_it_is(folder)}; name the folder of a run, which holds {CONFIG}")
    if not _is_file(folder / SUMMARY):
        raise ConfigError(
            f"{place} has no {SUMMARY} yet: the run is under way, or was stopped or killed; the command that started "
            f"it ends it, or leave this run out"
        )


def _what_it_is(folder: AnyPath) -> str:
    """Behind its name, in a message: what is there instead of a run."""
    if _is_file(folder / SWEEP):
        return "is a sweep, not one run"
    if _is_file(folder / "manifest.json"):
        return "is a store, not a run"
    if _is_file(folder):
        return "is a file, not the folder of a run"
    return "holds no run" if folder.exists() else "does not exist"


def _is_file(path: AnyPath) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _read(path: AnyPath, parse: Callable[[bytes], Value]) -> Value:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _keys_of(content: bytes, shown: AnyPath) -> dict[str, Any]:
    return saved_keys(parse_text_with_sum(content, shown), shown)


def _typed_of(content: bytes) -> dict[str, str]:
    """Of ``overrides.txt``; its sum is a comment, and what is no override is left out: it names runs, no more."""
    lines = content.decode("utf-8", "replace").splitlines()
    words = [line for line in lines if "=" in line and not line.startswith("#")]
    return {key_of(word): word.partition("=")[2] for word in words}


def _history_of(content: bytes) -> tuple[list[dict[str, Any]], int]:
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):  # a kill in the middle of a line
        lines.pop()
    rows = [_row_of(line) for line in lines]
    return [row for row in rows if row is not None], rows.count(None)


def _row_of(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _sessions_of(content: bytes) -> list[dict[str, Any]]:
    try:
        sessions = json.loads(content)
    except (ValueError, RecursionError):
        return []
    return [each for each in sessions if isinstance(each, dict)] if isinstance(sessions, list) else []
