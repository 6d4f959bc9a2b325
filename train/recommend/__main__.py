"""``python -m train.recommend run_dir=R ...``: the best items for users, histories or items; writes one file."""

import sys
from collections.abc import Sequence

from configs.errors import exit_code_of
from train.evaluation.preflight import evaluated_run, keys_of
from train.recommend.run import recommend
from train.supervision.process_exit import run_and_exit


def main(overrides: Sequence[str]) -> int:
    """``overrides`` name the ``run_dir`` and what is asked for; 0, or 2 after one line."""
    return exit_code_of(lambda: recommend(evaluated_run(overrides), keys_of(overrides)))


if __name__ == "__main__":
    run_and_exit(lambda: main(sys.argv[1:]))
