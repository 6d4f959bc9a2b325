"""Time, tokens and cost are those of every session, each with its own ranks and price; the clock never runs back."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from configs.schema import HardwareConfig
from data_pipeline.batch import SequenceBatch
from ranks import EqualRanks
from train import metrics_logger
from train.accounting.ledger import Ledger
from train.accounting.phase_clock import PhaseClock
from train.evaluation.cost import cost_of
from train.metrics_logger import RunTracker
from train.progress import RunProgress
from train.state import TrainState
from train.step import StepMetrics

TOKENS = 100
"""Of a rank in a step, which takes a second."""
NO_BATCH = cast(SequenceBatch, None)
"""Nobody counts its FLOP here."""


class Rates:
    """A rate that says its step."""

    def rates(self, step: int) -> dict[str, float]:
        return {"dense": float(step), "table": 10.0 * step}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that a test sets; it starts anywhere, as that of another machine does."""
    found = SimpleNamespace(now_s=500.0)
    monkeypatch.setattr(metrics_logger.time, "perf_counter", lambda: found.now_s)
    return found


def state_at(step: int, world_size: int) -> TrainState:
    state = SimpleNamespace(
        collectives=EqualRanks(world_size), device=torch.device("cpu"), step=step, schedule=Rates(), flop=None
    )
    return cast(TrainState, state)


def ledger_in(folder: Path, hardware: HardwareConfig, world_size: int) -> Ledger:
    """Of the next session of the run in ``folder``."""
    ledger = Ledger(PhaseClock(), hardware, EqualRanks(world_size))  # type: ignore[arg-type]
    ledger.open(folder)
    return ledger


def tracker_in(folder: Path, progress: RunProgress, ledger: Ledger, state: TrainState) -> RunTracker:
    before = ledger.resume(progress)
    return RunTracker(folder, progress, ledger, before, every_steps=1, num_steps=99, state=state)


def session(
    folder: Path,
    progress: RunProgress,
    world_size: int,
    usd: float,
    steps: range,
    clock: SimpleNamespace,
    log_every: int = 1,
) -> RunProgress:
    """What a session of ``steps`` on ``world_size`` ranks adds to ``progress``."""
    clock.now_s = 7.0 * world_size  # another machine's clock
    state = state_at(steps.start, world_size)
    hardware = HardwareConfig(usd_per_device_hour=usd, watts_per_device=100.0)
    with (
        ledger_in(folder, hardware, world_size) as ledger,
        RunTracker(
            folder, progress, ledger, ledger.resume(progress), every_steps=1, num_steps=99, state=state
        ) as tracker,
    ):
        for step in steps:
            clock.now_s += 1.0
            metrics = StepMetrics(torch.tensor(1.0), 1, TOKENS, True, gradient_norm=2.0, is_clipped=step % 3 == 0)
            tracker.count(metrics, NO_BATCH)
            if (step + 1) % log_every == 0:
                tracker.log(step + 1, metrics)
        tracker.account(progress)
    return progress


def test_a_session_adds_its_own_devices_and_its_own_price(tmp_path: Path, clock: SimpleNamespace):
    progress = RunProgress()
    for world_size, usd, steps in [(4, 2.0, range(0, 10)), (1, 0.5, range(10, 40)), (2, 1.0, range(40, 45))]:
        progress = session(tmp_path, progress, world_size, usd, steps, clock)
    assert progress.wall_s == pytest.approx(45)
    assert progress.num_tokens == TOKENS * (4 * 10 + 30 + 2 * 5)
    found = cost_of(progress)
    assert found["device_hours"] == pytest.approx((40 + 30 + 10) / 3600)
    assert found["usd"] == pytest.approx((40 * 2.0 + 30 * 0.5 + 10 * 1.0) / 3600)
    assert found["kwh"] == pytest.approx(80 * 0.1 / 3600)


def test_counting_twice_counts_once(tmp_path: Path, clock: SimpleNamespace):
    """A checkpoint accounts, and so does the end."""
    progress = session(tmp_path, RunProgress(), 2, 1.0, range(0, 3), clock)
    state = state_at(3, 3)
    with (
        ledger_in(tmp_path, HardwareConfig(), 3) as ledger,
        RunTracker(
            tmp_path, progress, ledger, ledger.resume(progress), every_steps=1, num_steps=9, state=state
        ) as tracker,
    ):
        clock.now_s += 5
        tracker.account(progress)
        tracker.account(progress)
    assert progress.device_s == pytest.approx(2 * 3 + 3 * 5)


def test_the_clock_of_a_resumed_run_goes_on(tmp_path: Path, clock: SimpleNamespace):
    progress = session(tmp_path, RunProgress(), 4, 1.0, range(0, 5), clock)
    session(tmp_path, progress, 1, 1.0, range(5, 8), clock)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["elapsed_s"] for row in rows] == pytest.approx(list(range(1, 9)))


def test_a_line_tells_the_rates_of_its_step_and_the_share_of_clipped_steps_since_the_last_one(
    tmp_path: Path, clock: SimpleNamespace
):
    """A stop between two lines changes neither."""
    progress = session(tmp_path, RunProgress(), 1, 1.0, range(0, 6), clock, log_every=4)
    progress = session(tmp_path, progress, 1, 1.0, range(6, 9), clock, log_every=4)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["lr"], row["table_lr"]) for row in rows] == [(4, 3.0, 30.0), (8, 7.0, 70.0)]
    assert [row["clipped_share"] for row in rows] == [2 / 4, 1 / 4], "every third step is clipped: 0, 3, 6"
    assert [row["gradient_norm"] for row in rows] == [2.0, 2.0]
    assert progress.num_clipped_steps == 3
