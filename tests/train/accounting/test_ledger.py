"""What sessions have spent is on record whatever ends them, is counted once, and says what came to nothing."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from configs.schema import HardwareConfig
from ranks import EqualRanks
from train.accounting import phase_clock
from train.accounting.energy import EnergyMeter
from train.accounting.ledger import Ledger, write_spent
from train.accounting.phase_clock import Phase, PhaseClock
from train.progress import RunProgress
from train.run_dir.sessions_file import SESSIONS, SessionsFile


class Meter:
    """Counts what a test says."""

    source = "nvml"

    def __init__(self) -> None:
        self.total = 0.0

    def joules(self) -> float:
        return self.total


class Time:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def passes(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(phase_clock.time, "perf_counter", lambda: found.now_s)
    return found


def session(folder: Path, world_size: int, usd: float = 1.0, meter: EnergyMeter | None = None) -> Ledger:
    """Begun; nobody but the test says when it beats."""
    hardware = HardwareConfig(usd_per_device_hour=usd, watts_per_device=100.0)
    ledger = Ledger(PhaseClock(), hardware, EqualRanks(world_size), meter)  # type: ignore[arg-type]
    ledger.open(folder)
    return ledger


def beat(ledger: Ledger) -> None:
    """A heartbeat, as its thread does it."""
    ledger._record("")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / SESSIONS).read_text().splitlines()]


def test_a_killed_session_is_billed_up_to_its_last_heartbeat(tmp_path: Path, time: Time):
    first = session(tmp_path, world_size=4, usd=2.0)
    time.passes(30)
    beat(first)
    time.passes(1)  # and then it is killed
    second = session(tmp_path, world_size=2, usd=0.5)
    time.passes(10)
    spent = second.spent()
    assert spent.device_s == pytest.approx(4 * 30 + 2 * 10)
    assert spent.wall_s == pytest.approx(40)
    assert spent.usd == pytest.approx((4 * 30 * 2.0 + 2 * 10 * 0.5) / 3600)
    assert spent.kwh == pytest.approx(140 * 0.1 / 3600)
    beat(second)
    assert [line["ended"] for line in lines(tmp_path)] == ["killed", ""]


def test_what_came_after_the_checkpoint_is_lost_once(tmp_path: Path, time: Time):
    """Two kills before the next checkpoint, and one after it."""
    progress = RunProgress()
    first = session(tmp_path, world_size=2)
    first.resume(progress)
    time.passes(50)
    write_spent(first.spent(), progress)  # a checkpoint
    saved = vars_of(progress)
    time.passes(7)
    beat(first)
    for _ in range(2):
        again = session(tmp_path, world_size=2)
        progress = RunProgress(**saved)
        again.resume(progress)
        time.passes(3)
        beat(again)
    assert progress.lost_device_s == pytest.approx(2 * (7 + 3))
    last = session(tmp_path, world_size=1)
    progress = RunProgress(**saved)
    last.resume(progress)
    assert progress.lost_device_s == pytest.approx(2 * (7 + 3 + 3))
    time.passes(5)
    write_spent(last.spent(), progress)
    assert progress.device_s == pytest.approx(2 * (50 + 7 + 3 + 3) + 5)


def test_a_session_that_was_stopped_has_lost_nothing(tmp_path: Path, time: Time):
    progress = RunProgress()
    with session(tmp_path, world_size=1) as first:
        first.resume(progress)
        time.passes(50)
        write_spent(first.spent(), progress)
        first.ended = "stopped"
        time.passes(2)
    session(tmp_path, world_size=1).resume(progress)
    assert progress.lost_device_s == 0
    assert progress.device_s == pytest.approx(52), "the end of a session is billed as well"


def test_an_error_is_told_from_an_end(tmp_path: Path, time: Time):
    with session(tmp_path, world_size=1):
        time.passes(1)
    with pytest.raises(ValueError, match="bad"), session(tmp_path, world_size=1):
        raise ValueError("bad")
    assert [line["ended"] for line in lines(tmp_path)] == ["finished", "failed"]


def test_a_run_of_an_older_version_keeps_what_its_checkpoint_says(tmp_path: Path, time: Time):
    progress = RunProgress(wall_s=100.0, device_s=200.0, usd=3.0, kwh=0.5)
    ledger = session(tmp_path, world_size=1, usd=0.0)
    ledger.resume(progress)
    time.passes(10)
    assert ledger.spent().device_s == pytest.approx(210)
    assert ledger.spent().usd == pytest.approx(3.0)
    assert progress.lost_device_s == 0
    beat(ledger)
    again = session(tmp_path, world_size=1, usd=0.0)
    assert again.spent().device_s == pytest.approx(210), "it is on record from now on"


def test_a_damaged_line_stays_and_is_told(tmp_path: Path, time: Time, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):
        with session(tmp_path, world_size=1):
            time.passes(10)
    path = tmp_path / SESSIONS
    path.write_text(path.read_text().replace("finished", "fjnished", 1))
    damaged = path.read_text().splitlines()[0]
    ledger = session(tmp_path, world_size=1)
    assert "line 1 is damaged" in capsys.readouterr().out
    beat(ledger)
    assert path.read_text().splitlines()[0] == damaged
    assert ledger.spent().wall_s == pytest.approx(10)


def test_measured_energy_is_told_by_its_source(tmp_path: Path, time: Time):
    """3 ranks, each with a meter: 36 kJ each are 10 Wh each."""
    meter = Meter()
    ledger = session(tmp_path, world_size=3, meter=meter)
    time.passes(10)
    meter.total = 36_000.0
    assert ledger.spent_here().kwh == pytest.approx(0.03)
    ledger.gather()
    assert ledger.spent_here().kwh == pytest.approx(0.03)
    assert ledger.line("")["power_source"] == "nvml"


def test_phases_of_all_ranks_sum_to_the_time_of_all_devices(tmp_path: Path, time: Time):
    ledger = session(tmp_path, world_size=2)
    for gathers in (False, True):
        with ledger.clock.phase(Phase.VALIDATION):
            time.passes(5)
        if gathers:
            ledger.gather()
        line = ledger.line("")
        assert sum(line["phases_s"].values()) == pytest.approx(line["device_s"])
    assert line["phases_s"]["validation"] == pytest.approx(20)


def test_a_full_disk_is_told_and_ends_nothing(
    tmp_path: Path, time: Time, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    ledger = session(tmp_path, world_size=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.run_dir.sessions_file.write_atomically", full)
    beat(ledger)
    beat(ledger)
    assert capsys.readouterr().out.count("sessions.jsonl cannot be written") == 1


def vars_of(progress: RunProgress) -> dict[str, Any]:
    """As a checkpoint keeps them."""
    return {name: getattr(progress, name) for name in RunProgress.__slots__}


def test_a_flipped_bit_or_a_cut_costs_one_line_at_most(
    tmp_path: Path, time: Time, capsys: pytest.CaptureFixture[str]
):
    for _ in range(3):
        with session(tmp_path, world_size=1):
            time.passes(10)
    path = tmp_path / SESSIONS
    whole = path.read_bytes()
    draw = random.Random(1)
    for trial in range(60):
        place = draw.randrange(len(whole))
        damaged = bytes([whole[place] ^ 1 << draw.randrange(8)])
        path.write_bytes(whole[:place] if trial % 2 else whole[:place] + damaged + whole[place + 1 :])
        found = SessionsFile(tmp_path).earlier
        assert len(found) >= (whole[:place].count(b"\n") if trial % 2 else 1)
        assert all(line["wall_s"] == pytest.approx(10) for line in found)
    assert "is damaged" in capsys.readouterr().out
