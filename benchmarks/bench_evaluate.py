"""How many users a second are ranked exactly against the whole catalogue.

``python -m benchmarks evaluate data.store=STORE ...``; one process, two threads unless ``hardware.*`` says otherwise.
The weights are the initial ones: the work does not depend on them.
"""

from benchmarks.harness import interleaved, record_name, seconds_of, spread_of, write_result
from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.split import Subset
from data_pipeline.store.manifest import load_manifest
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.evaluation.protocol import target_ranks_of
from train.run import build_state

NUM_ROUNDS = 5
DEFAULTS = ["hardware.num_ranks=1", "hardware.num_threads=2"]


def main(overrides: list[str]) -> None:
    """Rank the test events, reading included, seen items left out and not; write ``results/evaluate.json``."""
    config = load_config([*DEFAULTS, *overrides])
    if config.hardware.num_ranks != 1:
        raise ConfigError(
            f"hardware.num_ranks={config.hardware.num_ranks}: the evaluate benchmark is one process; set it to 1"
        )
    manifest = load_manifest(config.data.store)
    with process_group(config.hardware) as device:
        state = build_state(config, manifest, 1, ProcessGroupCollectives(), device)
        num_users = len(target_ranks_of(state, config, manifest.num_items, Subset.TEST))

        def users_per_s(leave_out_seen: bool) -> float:
            config.evaluation.leave_out_seen = leave_out_seen
            return num_users / seconds_of(lambda: target_ranks_of(state, config, manifest.num_items, Subset.TEST))

        rates = interleaved(
            {"seen_left_out": lambda: users_per_s(True), "all_items": lambda: users_per_s(False)}, NUM_ROUNDS
        )
    figures = {f"{name}.users_per_s": spread_of(runs) for name, runs in rates.items()}
    notes = {
        "num_users": num_users,
        "num_items": manifest.num_items,
        "batch_size": config.evaluation.batch_size,
        "max_history": config.data.max_history,
        "fingerprint": manifest.fingerprint,
    }
    write_result(record_name("evaluate", config.hardware), overrides, figures, notes)
