"""The runs of a sweep: each combination of values, with a folder that says which it is."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.sweep.options import SweepOptions, suitable_workers
from configs import machine
from configs.errors import ConfigError
from configs.load import load_config, load_pinned
from configs.memory import check_memory
from configs.overrides import as_typed, key_of
from configs.schema import RunConfig
from configs.sweeps import swept

MAX_NAME = 100
"""Characters of a folder's name; what is longer ends with a sum instead."""
_SAFE = re.compile(r"[^A-Za-z0-9._+=,@-]+")


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a sweep: ``values`` are those that tell it from the others, as they were typed, by their keys."""

    name: str
    values: dict[str, str]
    config: RunConfig
    words: list[str]
    """Give the same configuration in every process."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a sweep, and how many of them run at once."""

    jobs: list[Job]
    workers: int


def plan_of(options: SweepOptions) -> Plan:
    """Every run that ``options`` ask for, composed and checked; nothing is written.

    What the user has left to the machine is shared out among runs that run at once: on a CPU one rank each, and equal
    parts of the cores. Raises :class:`ConfigError`, which names the run.
    """
    last_typed = {key_of(word): word for word in options.words}  # of a key that is typed twice, as for one run
    combinations = list(dict.fromkeys(tuple(each) for each in swept(list(last_typed.values()))))
    first = load_config(combinations[0])
    device, is_alone = first.hardware.device, options.workers == 1
    typed = set(last_typed)
    given = [] if "hardware.num_ranks" in typed or device == "cuda" else ["hardware.num_ranks=1"]
    num_ranks = first.hardware.num_ranks if not given else 1
    workers = options.workers or suitable_workers(machine.usable_cores(), num_ranks, device)
    workers = min(workers, len(combinations))
    if "hardware.num_threads" not in typed and not is_alone:
        given.append(f"hardware.num_threads={max(machine.usable_cores() // (workers * num_ranks), 1)}")
    keys = _swept_keys(combinations)
    jobs = [_job_of(options.folder, [*words, *given], keys) for words in combinations]
    return Plan(jobs, workers)


def _swept_keys(combinations: Sequence[Sequence[str]]) -> list[str]:
    """The keys with several values, in the order in which they were typed."""
    columns = zip(*combinations, strict=True)
    return [key_of(column[0]) for column in columns if len(set(column)) > 1]


def _job_of(folder: str, words: Sequence[str], keys: Sequence[str]) -> Job:
    values = {key_of(word): word.partition("=")[2] for word in words if key_of(word) in keys}
    name = name_of(values)
    try:
        config, pinned = load_pinned([*words, f"run_dir={as_typed(f'{folder}/{name}')}"], machine=True)
        check_memory(config)
    except ConfigError as error:
        raise ConfigError(f"{error} (in the run {name})") from error
    return Job(name, values, config, pinned)


def name_of(values: dict[str, str]) -> str:
    """The folder of the run with ``values``: ``loss=bce,model.embedding_dim=32``, whatever else is swept with them.

    Other values have another name: what a path cannot hold, or is long, is cut and ends with a sum of the whole.
    """
    whole = ",".join(f"{key}={values[key]}" for key in sorted(values)) or "run"
    name = _SAFE.sub("-", whole)[:MAX_NAME]
    return name if name == whole else f"{name}-{hashlib.sha256(whole.encode('utf-8', 'replace')).hexdigest()[:8]}"
