"""What the command line of a sweep says: its folder, how many runs at once, and the words of the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import ConfigError, require
from configs.machine import MAX_RANKS_ON_CPU
from configs.paths import checked_folder
from configs.url import is_url

SWEEP_DIR, WORKERS, DRY_RUN = "sweep_dir", "sweep.workers", "--dry-run"
MAX_WORKERS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions:
    """``workers`` is 0 where the machine decides; ``words`` are the keys of the runs, as they were typed."""

    folder: str
    workers: int
    is_dry_run: bool
    words: list[str]


def options_of(words: Sequence[str]) -> SweepOptions:
    """The options that ``words`` say. Raises :class:`ConfigError` for a missing folder and what is no option."""
    folder, workers, is_dry_run, of_runs = "", 0, False, list[str]()
    for word in words:
        key, is_pair, value = word.partition("=")
        if key == SWEEP_DIR and is_pair:
            folder = _folder(value)
        elif key == WORKERS and is_pair:
            workers = _workers(value)
        elif word == DRY_RUN:
            is_dry_run = True
        elif word.startswith("-") or key.startswith(("sweep.", "cluster")):
            raise ConfigError(f"{word} is no option of sweep; it takes {SWEEP_DIR}, {WORKERS}, {DRY_RUN} and keys")
        else:
            require(
                key not in ("run_dir", "scratch_dir"),
                f"{word}: every run of a sweep has a folder below {SWEEP_DIR}, which you set; leave {key} out",
            )
            of_runs.append(word)
    require(bool(folder), f"sweep needs a folder for its runs: shardrec sweep key=a,b {SWEEP_DIR}=DIR")
    return SweepOptions(folder=folder, workers=workers, is_dry_run=is_dry_run, words=of_runs)


def _folder(value: str) -> str:
    path = checked_folder(SWEEP_DIR, value)
    require(bool(path), f"{SWEEP_DIR} is empty; name a folder")
    for name, what in (("config.yaml", "a run"), ("manifest.json", "a store")):
        require(
            not (Path(path) / name).is_file(), f"{SWEEP_DIR}={value} is {what}; name a folder for the sweep alone"
        )
    require(not is_url(path), f"{SWEEP_DIR}={value} is a URL; a sweep's runs are written to a local folder")
    return path


def _workers(value: str) -> int:
    is_number = value.isascii() and value.isdecimal() and len(value) < 4
    require(
        value == "auto" or (is_number and 1 <= int(value) <= MAX_WORKERS),
        f"{WORKERS}={value[:50]} is no number of runs at once; write 1 to {MAX_WORKERS}, or auto",
    )
    return 0 if value == "auto" else int(value)


def suitable_workers(num_cores: int, num_ranks: int, device: str) -> int:
    """Runs at once where the user has not said: as many as have a core for each rank; on GPUs one."""
    return 1 if device == "cuda" else max(1, min(num_cores // num_ranks, MAX_RANKS_ON_CPU))
