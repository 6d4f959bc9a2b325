"""``python -m train.evaluate run_dir=R``: exact ranking of a run's best checkpoint; writes ``R/evaluation.json``."""

import sys
from collections.abc import Sequence

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.run_place import READER, folder_of
from configs.schema import RunConfig
from data_pipeline.manifest import load_manifest
from train.checkpoint import DiskCheckpointer
from train.ending import end_with
from train.mirror import mirror_of
from train.peers import DistributedPeers, process_group
from train.run import build_state
from train.run_folder import saved_fingerprint, saved_overrides
from train.summary import print_quality, quality_report, write_summary
from train.watchdog import Watchdog

EVALUATION = "evaluation.json"


def evaluate(config: RunConfig) -> None:
    """Rank the test events with the best checkpoint of ``config.run_dir``. Collective."""
    with process_group(config.hardware) as device, Watchdog(config.hardware) as watchdog:
        manifest = load_manifest(config.data.store)
        if saved_fingerprint(config.run_dir) != manifest.fingerprint:
            raise ConfigError(
                f"data.store={config.data.store} holds other data than run_dir={config.run_dir} learnt from; its "
                f"manifest's fingerprint is {manifest.fingerprint}"
            )
        state = build_state(config, manifest, num_steps=1, peers=DistributedPeers(), device=device)
        mirror = mirror_of(config, watchdog.beat, READER)
        if mirror is not None:
            mirror.fetch_list()
        folder = folder_of(config, READER)
        with DiskCheckpointer(folder, config.checkpoint, watchdog.beat, mirror) as checkpointer:
            checkpointer.restore_best(state)
        report = quality_report(state, config, manifest)
        if state.peers.rank == 0:
            write_summary(report, folder / EVALUATION)
            if mirror is not None:
                (mirror.remote.place / EVALUATION).send(folder / EVALUATION)
            print_quality(report)


def main(overrides: Sequence[str]) -> int:
    """The run's own overrides come first, the given ones after; 0, or 2 after one line on stderr."""
    return exit_code_of(lambda: evaluate(load_config([*saved_overrides(load_config(overrides).run_dir), *overrides])))


if __name__ == "__main__":
    end_with(lambda: main(sys.argv[1:]))
