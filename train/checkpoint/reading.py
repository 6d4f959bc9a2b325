"""The checkpoints of a run for who reads them alone, as ``recommend`` does: nothing of the run changes."""

from collections.abc import Callable

from configs.run_dir import READER, local_run_dir
from configs.schema import RunConfig
from train.checkpoint.checkpointer import DiskCheckpointer
from train.run_dir.sync import run_sync_of


def checkpoints_of(config: RunConfig, heartbeat: Callable[[], None]) -> DiskCheckpointer:
    """Those of ``config.run_dir``, a context; of a run behind a URL what is there now, fetched when it is read.
    Collective."""
    sync = run_sync_of(config, heartbeat, READER)
    if sync is not None:
        sync.fetch_list()
    return DiskCheckpointer(local_run_dir(config, READER), config.checkpoint, heartbeat, sync)
