"""What a run has seen and spent; part of every checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from configs.schema.evaluation import LESS_IS_BETTER
from configs.schema.target import Target

PROGRESS = "progress.json"
"""Written last: step, :class:`RunProgress`, and size and XXH3-64 of every file of the checkpoint."""


@dataclass(slots=True)
class RunProgress:
    """Written as JSON beside the tensors of a checkpoint."""

    best_step: int = 0
    best_value: float | None = None
    """Of ``evaluation.metric``, at the best step; None where there is no best model yet."""
    validations_without_improvement: int = 0
    """Validations in a row without a better one."""
    validated_step: int = -1
    quality: dict[str, float] = field(default_factory=dict)
    """Of the best validation."""
    wall_s: float = 0.0
    device_s: float = 0.0
    """Wall time times ranks, added up session by session: their numbers may differ."""
    usd: float = 0.0
    kwh: float = 0.0
    num_tokens: int = 0
    """Spent, as the four above, by all sessions of the run up to the checkpoint, over all ranks."""
    num_samples: int = 0
    """Sequences that were trained on, in all epochs."""
    lost_device_s: float = 0.0
    """Of ``device_s``, what came to nothing since a session was killed or failed before it had saved it."""
    trained_device_s: float = 0.0
    """Of ``device_s``, what the steps took that brought the model here, with the wait for their batches."""
    flop: float = 0.0
    """Of those steps, forward and backward."""
    possible_flop: float = 0.0
    """What the devices can do at most in ``trained_device_s``."""
    bests: list[dict[str, Any]] = field(default_factory=list)
    """Each validation that was better than all before it, and what had been spent until then."""
    reached: dict[str, Any] = field(default_factory=dict)
    """The first validation that has reached ``train.target``, and what had been spent until then."""
    padded_tokens: int = 0
    """What the tokens would be if every rank had as many in every step as its fullest one."""
    num_nonfinite_steps: int = 0
    """Steps that changed nothing, since loss or gradient was not finite."""
    num_nonfinite_in_row: int = 0
    num_clipped_steps: int = 0
    """Steps whose gradients were scaled down to ``optimizer.clip_norm``."""
    num_steps_since_log: int = 0
    num_clipped_since_log: int = 0
    """Of the steps since the last line of ``metrics.jsonl``, from which the next one has a share."""
    num_rollbacks: int = 0
    skipped_ranges: list[list[int]] = field(default_factory=list)
    """``[first, end]`` of stretches of steps that ended in a rollback: their batches are read and not trained."""
    refit_on: str = ""
    """Of a final fit, the events that it is trained on (``train.refit_on``), to the epochs of ``best_step``."""
    warm_start: dict[str, Any] = field(default_factory=dict)
    """Of a run that began with the model of another: which, and how many rows it took."""
    metrics_bytes: int = 0
    """Of ``metrics.jsonl`` at the checkpoint."""
    metrics_sum: str = ""
    """XXH3-64 of those bytes."""

    def record_step(self, is_finite: bool) -> None:
        """Count a step."""
        self.num_nonfinite_steps += not is_finite
        self.num_nonfinite_in_row = 0 if is_finite else self.num_nonfinite_in_row + 1

    def record_validation(self, step: int, quality: dict[str, float], metric: str) -> bool:
        """Count the validation after ``step``; whether it is the best so far by ``metric``."""
        self.validated_step = step
        if not self._is_better(quality[metric], metric):
            self.validations_without_improvement += 1
            return False
        self.best_step, self.best_value, self.quality = step, quality[metric], quality
        self.validations_without_improvement = 0
        return True

    def _is_better(self, value: float, metric: str) -> bool:
        if self.best_value is None:
            return True
        return value < self.best_value if metric in LESS_IS_BETTER else value > self.best_value

    def is_ended(self, patience: int, target: Target | None) -> bool:
        """Whether validation has ended the run: by ``patience``, or since it has reached ``target``."""
        return self.validations_without_improvement >= patience or self.has_reached(target)

    def has_reached(self, target: Target | None) -> bool:
        """Whether a validation was good enough; a ``target`` that is set higher later is another one."""
        found = self.reached
        return (
            bool(found)
            and target is not None
            and found["metric"] == target.metric
            and target.is_reached(found["value"])
        )

    def record_best(self, spent: dict[str, Any], metric: str) -> None:
        """Remember what had been ``spent`` when the best model of now was found."""
        assert self.best_value is not None, "a validation was recorded"
        sign = -1 if metric in LESS_IS_BETTER else 1
        if all(sign * self.best_value > sign * each["value"] for each in self.bests if each["metric"] == metric):
            self.bests.append({"step": self.best_step, "metric": metric, "value": self.best_value, **spent})

    def forget_best(self) -> None:
        """The best model is lost: the next validation is the best so far, and there is one before the run ends."""
        self.best_step, self.best_value, self.validated_step, self.quality = 0, None, -1, {}

    def is_skipped(self, step: int) -> bool:
        """Whether ``step`` lies in a range that ended in a rollback."""
        return any(first <= step < end for first, end in self.skipped_ranges)

    def misses_validation(self, step: int) -> bool:
        """Whether the validation that was due after ``step`` did not come to its end."""
        return self.validated_step < step and step > 0 and not self.is_skipped(step - 1)

    def merge_after_rollback(self, later: "RunProgress", step: int) -> None:
        """Keep, after a rollback, what ``later``, which had reached ``step``, knows of bad steps."""
        self.num_nonfinite_steps, self.num_rollbacks = later.num_nonfinite_steps, later.num_rollbacks + 1
        self.skipped_ranges = [*later.skipped_ranges, [step - later.num_nonfinite_in_row, step]]
        self.num_nonfinite_in_row = 0
