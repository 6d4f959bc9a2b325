"""The one job that writes in a run folder: its rank 0 holds the lease, its other ranks say that they are there."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch.distributed as dist

from configs.errors import USAGE_EXIT_CODE
from configs.run_dir import describe_run_dir, local_run_dir
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.store.lease import Lease, Presence
from data_pipeline.store.paths import path_of
from train.distributed.collectives import on_all_ranks, on_rank_zero


@contextmanager
def writing_run(config: RunConfig, heartbeat: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Hold ``run_dir`` against every other job; yields what raises ``LeaseError`` on a job that has lost it, to be
    called by rank 0 before it publishes something. ``heartbeat`` is called while an earlier job is waited for.

    Raises ``ConfigError`` on every rank where another job writes there. Collective.
    """
    with ExitStack() as held:
        found: list[Lease] = []

        def take() -> None:
            found.append(Lease(path_of(config.run_dir), f"run_dir={config.run_dir}", heartbeat, _end))
            held.enter_context(found[0])

        on_rank_zero(take)
        if is_url(config.run_dir):  # the folder in which this machine works is a job's own as well
            on_all_ranks(lambda: held.enter_context(_local_lease(config, heartbeat)) if _is_node_leader() else None)
        held.callback(Presence(local_run_dir(config), describe_run_dir(config)).close)
        dist.barrier()  # none goes on while another has not said that it is there
        yield found[0].check if found else lambda: None


def _local_lease(config: RunConfig, heartbeat: Callable[[], None]) -> Lease:
    return Lease(local_run_dir(config), describe_run_dir(config), heartbeat, _end)


def _is_node_leader() -> bool:
    return dist.get_node_local_rank(0) == 0


def _end(words: str) -> None:
    """End this rank, and with it the job, wherever it is: another job writes there now."""
    print(f"ConfigError: {words}", file=sys.stderr, flush=True)
    os._exit(USAGE_EXIT_CODE)
