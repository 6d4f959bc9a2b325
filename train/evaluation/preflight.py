"""``python -m train.evaluation.preflight run_dir=R``: what would end an evaluation at once, before ranks are started.

Without torch: it takes a moment, and the message is there once instead of once a rank.
"""

import sys
from collections.abc import Sequence

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.saved_run import place_overrides
from configs.schema import RunConfig, Split
from data_pipeline.store.manifest import identity_digests
from data_pipeline.store.paths import path_of
from train.run_dir.identity import load_run_config, refuse_other_evaluation
from train.run_dir.store_version import manifest_of_run


def evaluated_run(overrides: Sequence[str]) -> RunConfig:
    """The run in the ``run_dir`` of ``overrides``, with ``overrides`` on top.

    Raises :class:`ConfigError` as :func:`load_run_config` does.
    """
    return load_run_config(load_config(place_overrides(overrides)).run_dir, overrides)


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: _check(evaluated_run(overrides)))


def refuse_nothing_held_out(config: RunConfig) -> None:
    """Raise :class:`ConfigError` for a run that was trained on every event."""
    if config.data.split is Split.NONE:
        raise ConfigError(
            f"run_dir={config.run_dir} was trained with data.split=none, on every event, so that none is left to "
            f"rank; train with another data.split to see how good such a model is, or name newer events by data.store"
        )


def _check(config: RunConfig) -> None:
    refuse_nothing_held_out(config)
    refuse_other_evaluation(config, identity_digests(manifest_of_run(config, path_of(config.run_dir))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
