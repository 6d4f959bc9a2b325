"""``python -m train.recommend.preflight run_dir=R ...``: what would end it at once, before ranks are started."""

import sys
from collections.abc import Collection, Sequence

from configs.errors import exit_code_of
from configs.process_exit import exit_at_once
from configs.schema import RunConfig
from train.evaluation.preflight import evaluated_run, keys_of
from train.recommend.asked import asked_of
from train.recommend.request import request_of
from train.run_dir.model_files import refuse_without_model


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr; writes nothing."""
    return exit_code_of(lambda: _check(evaluated_run(overrides), keys_of(overrides)))


def _check(config: RunConfig, typed: Collection[str]) -> None:
    refuse_without_model(config)
    request_of(asked_of(config, typed))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
