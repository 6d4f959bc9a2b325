"""A trace of some steps by torch's profiler: what the host and the device do, call by call."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch.profiler import profile

PROFILE = "profile"
"""Folder of a run with a trace and a table of each rank."""
NUM_ROWS = 40


def not_profiled(step: int) -> AbstractContextManager[None]:
    """Nothing is traced."""
    return nullcontext()


class StepProfiler:
    """Traces from the first of some steps to the last, what lies between them included; a context that writes what
    there is when a run ends before that. Called with the number of a step, it is the context of that step."""

    def __init__(self, folder: Path, steps: Sequence[int], rank: int) -> None:
        """``steps``: first and last, or none; ``folder``: of the run."""
        self._first, self._last = steps or (0, -1)
        self._path = folder / PROFILE / f"rank-{rank}"
        self._profile: Any = None

    def __call__(self, step: int) -> AbstractContextManager[None]:
        """Around ``step``."""
        return self._traced(step) if self._first <= step <= self._last else nullcontext()

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._profile is not None:
            self._write(is_kept=kind is None)

    @contextmanager
    def _traced(self, step: int) -> Iterator[None]:
        if self._profile is None:
            self._profile = profile()
            self._profile.start()
        yield
        if step == self._last:
            self._write(is_kept=True)

    def _write(self, *, is_kept: bool) -> None:
        """A trace for Perfetto or chrome://tracing, and the calls that took most time. Raises :class:`OSError`."""
        trace, self._profile = self._profile, None
        trace.stop()
        if not is_kept:  # an error is under way
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        trace.export_chrome_trace(f"{self._path}.trace.json.gz")
        table = trace.key_averages().table(sort_by="self_cpu_time_total", row_limit=NUM_ROWS)
        Path(f"{self._path}.txt").write_text(f"{table}\n", encoding="utf-8")
