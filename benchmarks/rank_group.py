"""Ranks of :mod:`benchmarks.scaling_rank` that wait for requests: they cost no time between two rounds."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.collective_profile import Collective
from configs.errors import ConfigError
from configs.process_environment import module_environment


@dataclass(slots=True)
class Request:
    """Train ``num_steps`` more; ``is_profiled``: and count the collectives, which takes time of its own."""

    num_steps: int
    is_profiled: bool = False


@dataclass(slots=True)
class Answer:
    """``num_tokens`` of one rank in ``seconds`` of wall time and ``cpu_s`` of all its threads."""

    num_tokens: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    """Of its memory, since it was started."""
    fullest_tokens: int
    """Of all ranks, if each had in every step as many as the fullest one."""
    collectives: dict[str, Collective] = field(default_factory=dict)


class RankGroup:
    """The processes of one job of :mod:`benchmarks.scaling_rank`."""

    def __init__(self, processes: "list[subprocess.Popen[str]]") -> None:
        self._processes = processes

    def ask(self, request: Request) -> None:
        """Let all ranks begin."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # :meth:`answers` tells who has ended
                process.stdin.write(json.dumps(asdict(request)) + "\n")
                process.stdin.flush()

    def end(self) -> None:
        """Ask no more: the ranks end by themselves."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()

    def answers(self) -> list[Answer]:
        """What each rank says when it is done. Raises :class:`ConfigError` where one has ended; its own words are on
        stderr."""
        found = []
        for rank, process in enumerate(self._processes):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ConfigError(
                    f"rank {rank} of {len(self._processes)} ended with code {process.wait()}; see above"
                )
            told = json.loads(line)
            told["collectives"] = {name: Collective(**each) for name, each in told["collectives"].items()}
            found.append(Answer(**told))
        return found


@contextmanager
def rank_group(num_ranks: int, num_threads: int, overrides: Sequence[str], folder: Path) -> Iterator[RankGroup]:
    """A job of ``num_ranks`` ranks that train with ``overrides``; they keep what they write in ``folder``."""
    folder.mkdir()
    keys = [
        *overrides,
        f"hardware.num_ranks={num_ranks}",
        f"hardware.num_threads={num_threads}",
        f"run_dir={folder}/run",
    ]
    environment = module_environment(os.environ) | {"OMP_NUM_THREADS": str(num_threads)}
    with ExitStack() as stack:
        processes = []
        for rank in range(num_ranks):
            words = [str(rank), str(num_ranks), str(folder / "meeting"), *keys]
            command = [sys.executable, "-m", "benchmarks.scaling_rank", *words]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
            processes.append(stack.enter_context(process))
        group = RankGroup(processes)
        stack.callback(group.end)
        yield group
