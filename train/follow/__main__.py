"""``python -m train.follow data.log=LOG run_dir=R ...``: test, then train, over the windows of a log."""

import sys
from collections.abc import Sequence

from configs.errors import exit_code_of
from train.follow.journey import followed
from train.follow.run import follow
from train.supervision.process_exit import run_and_exit


def main(overrides: Sequence[str]) -> int:
    """0, 2 after one line on stderr for what a person can mend, 75 after a stop."""
    return exit_code_of(lambda: follow(followed(overrides), list(overrides)))


if __name__ == "__main__":
    run_and_exit(lambda: main(sys.argv[1:]))
