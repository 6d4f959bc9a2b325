"""How a run goes: a line on the terminal, ``metrics.jsonl``, and events for TensorBoard; rank 0 writes."""

import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from configs.live_line import LiveLine
from configs.schema.target import Target
from data_pipeline.batch import SequenceBatch
from train.accounting.flop import largest_flop_per_s
from train.accounting.ledger import Ledger, Spent, write_spent
from train.accounting.memory import peak_memory_bytes
from train.accounting.phase_clock import TRAINING, Phase
from train.progress import RunProgress
from train.run_dir.metrics_file import MetricsFile
from train.state import TrainState
from train.step import StepMetrics
from train.trackers import TensorBoard, Tracker

_SHOWN = ("hr@10", "ndcg@10")
"""Of a validation, on the terminal."""


class RunTracker:
    """Counts predicted tokens, FLOP and time from its making; validation and checkpoints are part of the time."""

    def __init__(
        self,
        folder: Path,
        progress: RunProgress,
        ledger: Ledger,
        spent_before: Spent,
        *,
        every_steps: int,
        num_steps: int,
        state: TrainState,
        label: str = "",
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """``progress``: what was counted before; what was spent is ``spent_before`` and what ``ledger`` counts in
        this session. Lines of later steps than ``state.step`` go. ``label``: before each line on the terminal.
        ``trackers``: get the figures too, on the rank that has some; they are closed with this.
        """
        self._label = label
        self.every_steps, self.num_steps, self.collectives = every_steps, num_steps, state.collectives
        self.device, self.before, self.schedule = state.device, replace(progress), state.schedule
        self.ledger, self.flop, self.peak_flop_per_s = ledger, state.flop, 0.0
        if self.flop is not None:
            self.peak_flop_per_s = largest_flop_per_s(ledger.hardware, state.device, self.flop.dtype)
        self.spent_before, self.trained_before_s = spent_before, ledger.trained_device_s()
        self.last_phases_s = ledger.clock.seconds()
        self.num_clipped = progress.num_clipped_steps
        self.steps_since_log, self.clipped_since_log = progress.num_steps_since_log, progress.num_clipped_since_log
        self.started_s = self.last_s = time.perf_counter()
        self.num_tokens = self.padded_tokens = self.num_seen_steps = self.num_samples = 0
        self.last_tokens = self.own_flop = self.last_flop = 0.0
        self.tokens_of_steps: list[int] = []
        """Of this rank, by step, since the last look at all ranks."""
        self.is_writer = self.collectives.rank == 0
        if self.is_writer:
            self.live_line = LiveLine()
            self.file = MetricsFile(folder, state.step, progress.metrics_bytes, progress.metrics_sum)
            self.trackers = [TensorBoard(folder / "events"), *trackers]

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is logged."""
        return step % self.every_steps == 0 or step == self.num_steps

    def count(self, metrics: StepMetrics, batch: SequenceBatch) -> None:
        """Add the tokens and FLOP of a step on ``batch``, and whether it was clipped."""
        if self.flop is not None:
            self.flop.count(batch)
        self.num_samples += metrics.num_samples
        self.num_tokens += metrics.num_tokens
        self.tokens_of_steps.append(metrics.num_tokens)
        self.num_seen_steps += 1
        self.num_clipped += bool(metrics.is_clipped)
        self.steps_since_log += 1
        self.clipped_since_log += bool(metrics.is_clipped)

    def log(self, step: int, metrics: StepMetrics) -> None:
        """Write loss, rates, gradients, speed over all ranks, where the time went, and the time left. Collective."""
        tokens, _, flop = self._of_all_ranks()
        now_s, size = time.perf_counter(), self.collectives.world_size
        rate = (tokens - self.last_tokens) / max(now_s - self.last_s, 1e-9)
        where = self._where_time_went(flop - self.last_flop)
        self.last_s, self.last_tokens, self.last_flop = now_s, tokens, flop
        left_s = (self.num_steps - step) * (now_s - self.started_s) / self.num_seen_steps
        loss = float(metrics.loss)
        speed = {"tokens_per_s": rate, "tokens_per_s_per_device": rate / size, "num_ranks": size}
        self._write(step, {"loss": loss, **self._of_update(step, metrics), **speed, **where})
        if self.is_writer:
            line = f"step {step}/{self.num_steps}  loss {loss:.4f}  {rate:,.0f} tokens/s  {left_s:,.0f} s left"
            self.live_line.show(f"{self._label}{line}", step, self.num_steps)

    def _of_update(self, step: int, metrics: StepMetrics) -> dict[str, float]:
        """The rates of the step before ``step``, the norm of its gradients, and the share of clipped steps since the
        last line."""
        rates = self.schedule.rates(step - 1)
        found = {"lr": rates["dense"], "table_lr": rates["table"]}
        if metrics.gradient_norm is not None:
            found["gradient_norm"] = metrics.gradient_norm
        if metrics.is_clipped is not None:
            found["clipped_share"] = self.clipped_since_log / self.steps_since_log
        self.steps_since_log = self.clipped_since_log = 0
        return found

    def _where_time_went(self, flop: float) -> dict[str, float]:
        """This rank's seconds by phase since the last line, its peak memory, and the utilisation of all devices by
        ``flop``."""
        now_s = self.ledger.clock.seconds()
        spent_s = {phase: seconds - self.last_phases_s[phase] for phase, seconds in now_s.items()}
        self.last_phases_s = now_s
        steps_s = sum(spent_s[phase] for phase in TRAINING)
        found = {f"time_s/{phase.value}": round(seconds, 6) for phase, seconds in spent_s.items() if seconds}
        found["data_wait_share"] = round(spent_s[Phase.DATA_WAIT] / max(steps_s, 1e-9), 6)
        found["peak_memory_bytes"] = float(peak_memory_bytes(self.device))
        if self.peak_flop_per_s:
            possible = steps_s * self.collectives.world_size * self.peak_flop_per_s
            found["mfu"] = flop / max(possible, 1e-9)
        return found

    def log_costs(
        self, step: int, progress: RunProgress, quality: dict[str, float], metric: str, target: Target | None
    ) -> None:
        """Remember what the ``quality`` that was just found has cost where it is the best by ``metric`` so far, or
        has reached ``target``. Collective."""
        tokens, samples, _ = self._of_all_ranks()
        self.ledger.gather()
        spent = self._spent()
        cost = {
            **{"wall_s": spent.wall_s, **spent.bill()},
            **{"tokens": self.before.num_tokens + int(tokens), "samples": self.before.num_samples + int(samples)},
        }
        if progress.best_step == step:
            progress.record_best(cost, metric)
        if target is not None and not progress.has_reached(target) and target.is_reached(quality[target.metric]):
            found = {"step": step, "metric": target.metric, "target": target.value, "value": quality[target.metric]}
            progress.reached = {**found, **cost, "phases_s": self.ledger.all_phases_s()}

    def log_quality(self, step: int, quality: dict[str, float], metric: str) -> None:
        """Write a validation down; ``metric`` is the figure that decides which is the best."""
        self._write(step, {f"valid/{key}": value for key, value in quality.items()})
        if self.is_writer:
            shown = " ".join(f" {key.upper()} {quality[key]:.4f}" for key in dict.fromkeys((*_SHOWN, metric)))
            self.live_line.say(f"step {step}/{self.num_steps}  valid {shown}")

    def account(self, progress: RunProgress) -> None:
        """Write time, cost and tokens of this and earlier sessions into ``progress``. Collective."""
        self.ledger.gather()
        write_spent(self._spent(), progress)
        trained_s = self.ledger.trained_device_s() - self.trained_before_s
        tokens, samples, flop = self._of_all_ranks()
        progress.num_tokens = self.before.num_tokens + int(tokens)
        progress.num_samples = self.before.num_samples + int(samples)
        progress.flop = self.before.flop + flop
        progress.trained_device_s = self.before.trained_device_s + trained_s
        progress.possible_flop = self.before.possible_flop + trained_s * self.peak_flop_per_s
        progress.padded_tokens = self.before.padded_tokens + self.padded_tokens
        progress.num_clipped_steps = self.num_clipped
        progress.num_steps_since_log, progress.num_clipped_since_log = self.steps_since_log, self.clipped_since_log
        if self.is_writer:
            progress.metrics_bytes, progress.metrics_sum = self.file.num_bytes, self.file.sum()

    def __enter__(self) -> "RunTracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with suppress(OSError) if kind else nullcontext():  # a full disk must not hide the error that is under way
            self.close()

    def close(self) -> None:
        """Flush and close the files, and let go of the terminal."""
        if self.is_writer:
            self.live_line.close()
            self.file.close()
            for tracker in self.trackers:
                tracker.close()

    def _spent(self) -> Spent:
        return self.spent_before + self.ledger.spent_here()

    def _of_all_ranks(self) -> tuple[float, float, float]:
        """Tokens, samples and FLOP since the making. Collective."""
        if self.flop is not None:
            self.own_flop += self.flop.take()
        if self.tokens_of_steps:  # every rank has counted the same steps
            fullest = self.collectives.max(torch.tensor(self.tokens_of_steps, device=self.device))
            self.padded_tokens += int(fullest.sum()) * self.collectives.world_size
            self.tokens_of_steps = []
        own = torch.tensor([self.num_tokens, self.num_samples, self.own_flop], dtype=torch.float64)
        tokens, samples, flop = self.collectives.sum(own.to(self.device)).tolist()
        return tokens, samples, flop

    def _write(self, step: int, values: dict[str, Any]) -> None:
        if not self.is_writer:
            return
        self.file.write({"step": step, "elapsed_s": self._spent().wall_s, **values})  # of all sessions: never back
        for tracker in self.trackers:
            tracker.log(step, values)
