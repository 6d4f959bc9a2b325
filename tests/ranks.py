"""Runs a function on several gloo ranks and returns what each of them returned."""

import importlib.util
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT_S = 600
"""Of a collective: only a hang reaches it, not a busy machine."""

# Imported once, by a server that forks the ranks: an import a rank took two thirds of their time.
mp.set_forkserver_preload(["torch", "train.run"])


def run_ranks(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """``[function(*args) on rank 0, on rank 1, ...]``, each in its own process of one gloo group.

    ``function`` reads its rank from ``torch.distributed``. It must be importable by name from a file under
    ``tests/``; what it takes and returns must be picklable. A rank's traceback is raised here as RuntimeError. What
    the ranks print is printed here when they have ended, rank by rank.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        payload = (str(_file_of(function)), function.__qualname__, args)
        environment = dict(os.environ)  # the server that forks the ranks keeps that of its first use
        context = mp.start_processes(
            _rank,
            (world_size, folder, payload, environment),
            nprocs=world_size,
            join=False,
            start_method="forkserver",
        )
        try:
            _join(context, Path(folder), world_size)
        finally:
            for printed in sorted(Path(folder).glob("printed-*")):
                print(printed.read_text(), end="")
        return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(world_size)]


def _file_of(function: Callable[..., Any]) -> Path:
    return Path(function.__code__.co_filename).resolve()


def _join(context: Any, folder: Path, world_size: int) -> None:
    try:
        while not context.join():
            pass
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        failures = [folder / f"error-{rank}" for rank in range(world_size)]
        told = "\n".join(f"{file.name}: {file.read_text()}" for file in failures if file.exists())
        raise RuntimeError(told or str(error)) from None


def _rank(
    rank: int,
    world_size: int,
    folder: str,
    payload: tuple[str, str, tuple[Any, ...]],
    environment: dict[str, str],
) -> None:
    printed = os.open(Path(folder) / f"printed-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, sys.stdout.fileno())
    os.dup2(printed, sys.stderr.fileno())
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ["LOCAL_WORLD_SIZE"] = str(world_size)
    store = dist.FileStore(str(Path(folder) / "store"), world_size)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=TIMEOUT_S)
    )
    file, name, args = payload
    try:
        result = _function_named(file, name)(*args)
        (Path(folder) / f"result-{rank}").write_bytes(pickle.dumps(result))
        dist.barrier()
    except BaseException:
        (Path(folder) / f"error-{rank}").write_text(traceback.format_exc())
        raise
    finally:
        dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # as `python -m train` ends: native threads may abort the interpreter's shutdown


def _function_named(file: str, name: str) -> Callable[..., Any]:
    """Load ``file`` by its path: under ``--import-mode=importlib`` a child cannot import a test by its name."""
    spec = importlib.util.spec_from_file_location(f"rank_{Path(file).stem}", file)
    assert spec is not None, f"{file} is no Python file"
    assert spec.loader is not None, f"{file} has no loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


class EqualRanks:
    """Rank 0 of ``world_size`` ranks that all count the same."""

    rank = 0

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.world_size

    def max(self, value: torch.Tensor) -> torch.Tensor:
        return value
