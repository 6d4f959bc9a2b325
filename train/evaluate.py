"""``python -m train.evaluate run_dir=R``: exact ranking of a run's best checkpoint; writes ``R/evaluation.json``."""

import sys
from collections.abc import Sequence

from configs.errors import ConfigError, exit_code_of
from configs.run_dir import READER, local_run_dir
from configs.schema import RefitOn, RunConfig
from data_pipeline.store.manifest import identity_digests
from data_pipeline.store.paths import path_of
from train.build import build_state
from train.checkpoint.checkpointer import DiskCheckpointer
from train.checkpoint.model_to_ship import model_to_evaluate
from train.distributed.collectives import ProcessGroupCollectives, on_rank_zero, process_group
from train.evaluation.preflight import evaluated_run
from train.evaluation.summary import print_quality, quality_report, write_summary
from train.progress import RunProgress
from train.run_dir.identity import refuse_other_evaluation
from train.run_dir.store_version import at_version, manifest_of_run
from train.run_dir.sync import run_sync_of
from train.supervision.process_exit import run_and_exit
from train.supervision.watchdog import Watchdog

EVALUATION = "evaluation.json"


def evaluate(config: RunConfig) -> None:
    """Rank the test events with the best checkpoint of ``config.run_dir``. Collective."""
    with process_group(config.hardware) as device, Watchdog(config.hardware) as watchdog:
        manifest = manifest_of_run(config, path_of(config.run_dir))
        config = at_version(config, manifest.version)
        refuse_other_evaluation(config, identity_digests(manifest))
        state = build_state(config, manifest, num_steps=1, collectives=ProcessGroupCollectives(), device=device)
        sync = run_sync_of(config, watchdog.heartbeat, READER)
        if sync is not None:
            sync.fetch_list()
        folder = local_run_dir(config, READER)
        with DiskCheckpointer(folder, config.checkpoint, watchdog.heartbeat, sync) as checkpointer:
            name = model_to_evaluate(checkpointer, config.checkpoint.use)
            progress = checkpointer.restore(name, state)
        on_rank_zero(lambda: _refuse_trained_events(config, progress))
        report = quality_report(state, config, manifest) | {"checkpoint": name, "step": state.step}
        if state.collectives.rank == 0:
            write_summary(report, folder / EVALUATION)
            if sync is not None:
                (sync.remote.place / EVALUATION).send(folder / EVALUATION)
            print_quality(report)


def _refuse_trained_events(config: RunConfig, progress: RunProgress) -> None:
    """Raise :class:`ConfigError` where the model was trained on the test events of the run."""
    if progress.refit_on == RefitOn.EVERYTHING.value:
        raise ConfigError(
            f"checkpoint.use=final: the final model of run_dir={config.run_dir} was trained on the test events too "
            f"(train.refit_on=everything), so that ranking them says nothing; leave checkpoint.use out to rank the "
            f"selected model, or name newer events by data.store"
        )


def main(overrides: Sequence[str]) -> int:
    """``overrides`` name the ``run_dir`` and what may differ from the run's own config; 0, or 2 after one line."""
    return exit_code_of(lambda: evaluate(evaluated_run(overrides)))


if __name__ == "__main__":
    run_and_exit(lambda: main(sys.argv[1:]))
