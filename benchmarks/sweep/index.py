"""``sweep.parquet``: a row for each run of a sweep: what it is, what it gave, what it cost."""

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.runs.labels import telling_keys
from benchmarks.runs.recorded_run import SWEEP, RecordedRun, read_run
from benchmarks.sweep.jobs import Job
from configs.atomic_files import write_atomically
from configs.errors import ConfigError, DataError
from configs.flatten import flat
from configs.load import variants_of
from configs.overrides import as_typed
from configs.saved_run import CONFIG

ENDED, FAILED, STOPPED, UNFINISHED, UNREADABLE, WAITING = (
    *("ended", "failed", "stopped", "unfinished", "unreadable", "waiting"),
)
MARK = b"shardrec.sweep"
"""The key in the file's metadata that holds the swept keys, as JSON; also the proof that the file is ours."""
METRIC = "ndcg@10"


class Index:
    """What is known of the runs below ``folder``; each is read once, when it has ended."""

    def __init__(self, folder: Path, jobs: Sequence[Job] = ()) -> None:
        """Reads all runs that are there. Raises :class:`ConfigError` where ``sweep.parquet`` is another's file."""
        self.folder, self.jobs = folder, {job.name: job for job in jobs}
        self.runs: dict[str, RecordedRun] = {}
        self.states: dict[str, tuple[str, str]] = dict.fromkeys(self.jobs, (WAITING, ""))
        _refuse_foreign(folder / SWEEP)
        for path in _run_folders(folder):
            self.read(path.name)

    def read(self, name: str) -> None:
        """Read the run called ``name``."""
        try:
            self.runs[name] = read_run(str(self.folder / name))
            self.states[name] = (ENDED, "")
        except ConfigError as error:
            self.states[name] = (UNFINISHED, str(error))
        except DataError as error:
            self.states[name] = (UNREADABLE, str(error))

    def fail(self, name: str, state: str, why: str) -> None:
        """Write down that the run called ``name`` has not come to its end, and why."""
        self.states[name] = (state, why)

    def ended(self) -> list[RecordedRun]:
        """The runs that have come to their end."""
        return [run for name, run in self.runs.items() if self.states[name][0] == ENDED]

    def keys(self) -> list[str]:
        """The keys that tell the runs apart: those that are swept, in the order in which they were typed, and others
        that differ."""
        swept = [key for job in self.jobs.values() for key in job.values]
        return list(dict.fromkeys([*swept, *telling_keys(list(self.runs.values()))]))

    def write(self) -> Path:
        """Write ``sweep.parquet`` whole; returns its path."""
        keys = self.keys()
        rows = [self._row(name, keys) for name in self.states]
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
        table = table.replace_schema_metadata({MARK: json.dumps({"keys": keys}).encode()})
        content = io.BytesIO()
        pq.write_table(table, content)
        write_atomically(self.folder / SWEEP, content.getvalue())
        return self.folder / SWEEP

    def _row(self, name: str, keys: Iterable[str]) -> dict[str, Any]:
        state, why = self.states[name]
        run, job = self.runs.get(name), self.jobs.get(name)
        values = _values_of(run, job)
        row = {"run": name, "state": state, "why": why, **{key: values.get(key) for key in keys}}
        return row | (_results_of(run) if run is not None and state == ENDED else {})


def _values_of(run: RecordedRun | None, job: Job | None) -> dict[str, Any]:
    if run is not None:
        return {**run.typed, **run.keys}
    if job is not None:
        return {**job.values, **variants_of(job.config), **dict(flat(asdict(job.config)))}
    return {}


def _results_of(run: RecordedRun) -> dict[str, Any]:
    """Quality on the test events with the interval of one metric, and cost; None where a run did not record it."""
    quality, cost, speed = run.quality, run.summary.get("cost", {}), run.summary.get("throughput", {})
    low, high = quality.get("test_ci95", {}).get(METRIC, (None, None))
    return {
        **quality.get("test", {}),
        f"{METRIC} low": low,
        f"{METRIC} high": high,
        f"valid {METRIC}": quality.get("valid", {}).get(METRIC),
        "verdict": quality.get("verdict", {}).get("overall"),
        **{key: cost.get(key) for key in ("device_hours", "usd", "kwh")},
        **{key: speed.get(key) for key in ("wall_s", "tokens", "tokens_per_s_per_device")},
        **{key: run.summary.get(key) for key in ("steps", "best_step", "world_size")},
        "fingerprint": run.summary.get("data", {}).get("fingerprint"),
    }


def _column(values: list[Any]) -> pa.Array:
    """``values`` in their own type; as they are typed where they have several."""
    kinds = {type(each) for each in values if each is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return pa.array([float(each) if each is not None and float in kinds else each for each in values])
    return pa.array([None if each is None else as_typed(each) for each in values])


def _run_folders(folder: Path) -> list[Path]:
    """Those below ``folder`` that hold a run, in the order of their names; numbers by their values."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if (path / CONFIG).is_file()]
    return sorted(found, key=lambda path: (not path.name.isdecimal(), path.name.zfill(20)))


def _refuse_foreign(path: Path) -> None:
    """Raise :class:`ConfigError` where ``path`` is there and no sweep has written it."""
    if not path.exists():
        return
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        metadata = {}
    if MARK not in metadata:
        raise ConfigError(f"{path} was not written by a sweep, and would be overwritten; choose another sweep_dir")
