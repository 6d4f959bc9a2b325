"""What all sessions of a run have spent, on record while they run: a kill loses no more than the last heartbeat."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from configs.errors import DataError
from configs.schema import HardwareConfig
from models.collectives import Collectives
from train.accounting.energy import EnergyMeter
from train.accounting.phase_clock import TRAINING, Phase, PhaseClock
from train.progress import RunProgress
from train.run_dir.sessions_file import SESSIONS, Line, SessionsFile

HEARTBEAT_SHARE = 0.02
"""A heartbeat comes when this share of the session has passed since the last one."""
LEAST_HEARTBEAT_S, MOST_HEARTBEAT_S = 0.5, 30.0
SEND_S = 10.0
"""A run behind a URL sends its record at most so often between checkpoints."""
WATTS = "hardware.watts_per_device"
"""The source of energy that was not measured."""
FINISHED, STOPPED, FAILED, KILLED = "finished", "stopped", "failed", "killed"
UNKNOWN = "before this record"
"""What an earlier version has spent, of which only totals are known."""
HOUR_S, JOULES_PER_KWH = 3600, 3.6e6


@dataclass(frozen=True, slots=True)
class Spent:
    """Time, devices times time, dollars and energy."""

    wall_s: float = 0.0
    device_s: float = 0.0
    usd: float = 0.0
    kwh: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, name) + getattr(other, name) for name in Spent.__slots__))

    def bill(self) -> dict[str, float]:
        """Device-hours, US dollars and kWh."""
        return {"device_hours": self.device_s / HOUR_S, "usd": self.usd, "kwh": self.kwh}

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, name) - getattr(other, name) for name in Spent.__slots__))


def spent_of(record: Any) -> Spent:
    """Of a line of the record, or of a :class:`RunProgress`."""
    values = record if isinstance(record, dict) else {name: getattr(record, name) for name in Spent.__slots__}
    return Spent(*(float(values.get(name, 0.0)) for name in Spent.__slots__))


class Ledger:
    """What this session spends, and on rank 0 what the ones before it did. A context: left, the session is over.

    Price and watts are those of ``hardware`` in this session; other sessions may have had others. Energy is that of
    ``meter`` where each rank has one.
    """

    def __init__(
        self,
        clock: PhaseClock,
        hardware: HardwareConfig,
        collectives: Collectives,
        meter: EnergyMeter | None = None,
        ranks_per_meter: int = 1,
    ) -> None:
        """``ranks_per_meter``: how many ranks share what ``meter`` of the first of them counts."""
        self.clock, self.hardware, self.ended = clock, hardware, FINISHED
        self.earlier: list[Line] = []
        self._collectives, self._meter, self._ranks_per_meter = collectives, meter, ranks_per_meter
        self._own = self._own_counts()
        self._all = [value * self._scale(place) for place, value in enumerate(self._own)]
        self._file: SessionsFile | None = None
        self._send: Callable[[], None] = lambda: None
        self._lock, self._is_over = threading.Lock(), threading.Event()
        self._has_warned = False
        self._thread = threading.Thread(target=self._beat, name="ledger", daemon=True)

    def open(self, folder: Path, send: Callable[[], None] = lambda: None) -> float:
        """Go on with the record in ``folder``, on rank 0 alone; how many seconds this session has taken, none of
        them before the end of the last one. ``send`` brings the record to where the run is kept. Raises
        :class:`OSError`."""
        self._file, self._send = SessionsFile(folder), send
        self.earlier = self._file.earlier
        for line in self.earlier:
            line["ended"] = line["ended"] or KILLED
        if self.earlier:
            self.clock.limit_early(_seconds_since(self.earlier[-1]))
        self._file.write(self.line(""))
        return self.clock.total_s()

    def __enter__(self) -> "Ledger":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._record(FAILED if kind else self.ended)

    def resume(self, progress: RunProgress) -> Spent:
        """Give ``progress``, as a checkpoint had it, what all sessions have spent, and return what those before this
        one did.

        Time after the checkpoint is lost where the last session was killed or has failed: a session that was stopped
        saved first.
        """
        before = sum((spent_of(line) for line in self.earlier), Spent())
        if progress.device_s > before.device_s and self._file is not None:
            missing = spent_of(progress) - before
            self._file.keep({"began": "", "world_size": 0, **_values(missing), "phases_s": {}, "ended": UNKNOWN})
            before += missing
        if self.earlier and self.earlier[-1]["ended"] in (KILLED, FAILED):
            progress.lost_device_s += before.device_s - progress.device_s
        write_spent(self.spent(), progress)
        return before

    def gather(self) -> None:
        """Take the times and the energy of all ranks into account; between two calls they are as rank 0's.
        Collective."""
        own = self._own_counts()
        device = "cuda" if self.hardware.device == "cuda" else "cpu"
        every = self._collectives.sum(torch.tensor(own, dtype=torch.float64, device=device)).tolist()
        with self._lock:
            self._own, self._all = own, every

    def spent(self) -> Spent:
        """By all sessions up to now."""
        return sum((spent_of(line) for line in self.earlier), self.spent_here())

    def spent_here(self) -> Spent:
        """By this session up to now."""
        return self._spent_by(self._counts())

    def _spent_by(self, counts: list[float]) -> Spent:
        device_s = sum(counts[:-1])
        of_watts = device_s / HOUR_S * self.hardware.watts_per_device / 1000
        kwh = counts[-1] / JOULES_PER_KWH if self._meter else of_watts
        return Spent(
            wall_s=device_s / self._collectives.world_size,
            device_s=device_s,
            usd=device_s / HOUR_S * self.hardware.usd_per_device_hour,
            kwh=kwh,
        )

    @property
    def power_source(self) -> str:
        """Of this session's energy."""
        return self._meter.source if self._meter else WATTS

    def phases_s(self) -> dict[str, float]:
        """Device-seconds of this session by phase."""
        return _by_phase(self._counts())

    def all_phases_s(self) -> dict[str, float]:
        """Device-seconds of all sessions by phase, those that took any."""
        return summed_phases([*(line["phases_s"] for line in self.earlier), self.phases_s()])

    def trained_device_s(self) -> float:
        """Device-seconds of this session's steps."""
        found = self.phases_s()
        return sum(found[phase.value] for phase in TRAINING)

    def line(self, ended: str) -> Line:
        """What the record says of this session."""
        counts = self._counts()
        spent = self._spent_by(counts)
        began = datetime.now(UTC) - timedelta(seconds=spent.wall_s)
        return {
            "began": began.isoformat(timespec="milliseconds"),
            "world_size": self._collectives.world_size,
            "device": self.hardware.name,
            "usd_per_device_hour": self.hardware.usd_per_device_hour,
            "power_source": self.power_source,
            **_values(spent),
            "phases_s": {name: seconds for name, seconds in _by_phase(counts).items() if seconds},
            "ended": ended,
        }

    def _own_counts(self) -> list[float]:
        """Of this rank: seconds by phase, and joules."""
        return [*self.clock.seconds().values(), self._meter.joules() if self._meter else 0.0]

    def _counts(self) -> list[float]:
        """Of all ranks, as :meth:`_own_counts`."""
        own = self._own_counts()
        with self._lock:
            before = zip(self._all, self._own, own, strict=True)
            return [every + (now - then) * self._scale(place) for place, (every, then, now) in enumerate(before)]

    def _scale(self, place: int) -> float:
        size = self._collectives.world_size
        return size / self._ranks_per_meter if place == len(Phase) else size

    def _beat(self) -> None:
        """On the thread; of other ranks than 0 it reads the meter, which may start again at zero."""
        since_sent_s = 0.0
        while not self._is_over.wait(wait_s := self._interval_s()):
            if self._meter:
                self._meter.joules()
            since_sent_s += wait_s
            if self._file is not None:
                self._record("", is_sent=since_sent_s >= SEND_S)
                since_sent_s = 0.0 if since_sent_s >= SEND_S else since_sent_s

    def _interval_s(self) -> float:
        share_s = HEARTBEAT_SHARE * self.clock.total_s()
        return min(max(share_s, LEAST_HEARTBEAT_S), MOST_HEARTBEAT_S)

    def _record(self, ended: str, *, is_sent: bool = False) -> None:
        """A record that cannot be written must not end a run that can."""
        if self._file is None:
            return
        try:
            self._file.write(self.line(ended))
            if is_sent:
                self._send()
        except (OSError, DataError) as error:
            if not self._has_warned:
                print(f"warning: {SESSIONS} cannot be written: {error}; a kill would lose what it says", flush=True)
            self._has_warned = True


def write_spent(spent: Spent, progress: RunProgress) -> None:
    """Make ``spent`` what ``progress`` says of time and cost."""
    progress.wall_s, progress.device_s = spent.wall_s, spent.device_s
    progress.usd, progress.kwh = spent.usd, spent.kwh


def summed_phases(sessions: Sequence[dict[str, float]]) -> dict[str, float]:
    """Device-seconds of ``sessions`` together by phase, those that took any."""
    found = {phase.value: sum(each.get(phase.value, 0.0) for each in sessions) for phase in Phase}
    return {name: seconds for name, seconds in found.items() if seconds}


def _by_phase(counts: list[float]) -> dict[str, float]:
    """The first of ``counts``; the last is energy."""
    return {phase.value: seconds for phase, seconds in zip(Phase, counts, strict=False)}


def _seconds_since(line: Line) -> float:
    """Since the end of the session of ``line``, as far as it is known."""
    if not line["began"]:
        return float("inf")
    ended = datetime.fromisoformat(line["began"]) + timedelta(seconds=line["wall_s"])
    return (datetime.now(UTC) - ended).total_seconds()


def _values(spent: Spent) -> dict[str, float]:
    return {name: getattr(spent, name) for name in Spent.__slots__}
