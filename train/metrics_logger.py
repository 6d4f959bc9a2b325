"""How a run goes: a line on the terminal, ``metrics.jsonl``, and events for TensorBoard; rank 0 writes."""

import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from configs.live_line import LiveLine
from configs.schema import HardwareConfig
from train.evaluation.cost import add_cost
from train.progress import RunProgress
from train.run_dir.metrics_file import MetricsFile
from train.state import TrainState
from train.step import StepMetrics

_SHOWN = ("hr@10", "ndcg@10")
"""Of a validation, on the terminal."""


class RunTracker:
    """Counts predicted tokens and time from its making; validation and checkpoints are part of the time."""

    def __init__(
        self,
        folder: Path,
        progress: RunProgress,
        hardware: HardwareConfig,
        *,
        every_steps: int,
        num_steps: int,
        state: TrainState,
        label: str = "",
    ) -> None:
        """``progress``: what earlier sessions spent; this one spends ``hardware``. Lines of later steps than
        ``state.step`` go. ``label``: before each line on the terminal."""
        self._label = label
        self.every_steps, self.num_steps, self.collectives = every_steps, num_steps, state.collectives
        self.device, self.before, self.hardware = state.device, replace(progress), hardware
        self.schedule = state.schedule
        self.num_clipped = progress.num_clipped_steps
        self.steps_since_log, self.clipped_since_log = progress.num_steps_since_log, progress.num_clipped_since_log
        self.started_s = self.last_s = time.perf_counter()
        self.num_tokens = self.last_tokens = self.padded_tokens = self.num_seen_steps = 0
        self.tokens_of_steps: list[int] = []
        """Of this rank, by step, since the last look at all ranks."""
        self.is_writer = self.collectives.rank == 0
        if self.is_writer:
            self.live_line = LiveLine()
            self.file = MetricsFile(folder, state.step, progress.metrics_bytes, progress.metrics_sum)
            self.events = SummaryWriter(str(folder / "events"))

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is logged."""
        return step % self.every_steps == 0 or step == self.num_steps

    def count(self, metrics: StepMetrics) -> None:
        """Add a step's tokens, and whether it was clipped."""
        self.num_tokens += metrics.num_tokens
        self.tokens_of_steps.append(metrics.num_tokens)
        self.num_seen_steps += 1
        self.num_clipped += bool(metrics.is_clipped)
        self.steps_since_log += 1
        self.clipped_since_log += bool(metrics.is_clipped)

    def log(self, step: int, metrics: StepMetrics) -> None:
        """Write loss, rates, gradients, tokens/s over all ranks and the time left. Collective."""
        tokens = self._global_tokens()
        now_s = time.perf_counter()
        rate = (tokens - self.last_tokens) / max(now_s - self.last_s, 1e-9)
        self.last_s, self.last_tokens = now_s, tokens
        left_s = (self.num_steps - step) * (now_s - self.started_s) / self.num_seen_steps
        loss = float(metrics.loss)
        speed = {"tokens_per_s": rate, "num_ranks": self.collectives.world_size}
        self._write(step, {"loss": loss, **self._of_update(step, metrics), **speed})
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

    def log_quality(self, step: int, quality: dict[str, float], metric: str) -> None:
        """Write a validation down; ``metric`` is the figure that decides which is the best."""
        self._write(step, {f"valid/{key}": value for key, value in quality.items()})
        if self.is_writer:
            shown = " ".join(f" {key.upper()} {quality[key]:.4f}" for key in dict.fromkeys((*_SHOWN, metric)))
            self.live_line.say(f"step {step}/{self.num_steps}  valid {shown}")

    def account(self, progress: RunProgress) -> None:
        """Write time, cost and tokens of this and earlier sessions into ``progress``. Collective."""
        progress.wall_s, progress.device_s = self.before.wall_s, self.before.device_s
        progress.usd, progress.kwh = self.before.usd, self.before.kwh
        add_cost(progress, time.perf_counter() - self.started_s, self.collectives.world_size, self.hardware)
        progress.num_tokens = self.before.num_tokens + self._global_tokens()
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
            self.events.close()

    def _global_tokens(self) -> int:
        if self.tokens_of_steps:  # every rank has counted the same steps
            fullest = self.collectives.max(torch.tensor(self.tokens_of_steps, device=self.device))
            self.padded_tokens += int(fullest.sum()) * self.collectives.world_size
            self.tokens_of_steps = []
        return int(self.collectives.sum(torch.tensor(self.num_tokens, device=self.device)))

    def _write(self, step: int, values: dict[str, Any]) -> None:
        if not self.is_writer:
            return
        elapsed_s = self.before.wall_s + time.perf_counter() - self.started_s  # of all sessions: never back
        self.file.write({"step": step, "elapsed_s": elapsed_s, **values})
        for key, value in values.items():
            self.events.add_scalar(key, value, step)
