"""``python -m train.export run_dir=R``, alone or under torchrun."""

import sys

from configs.lifeline import end_with_starter
from configs.terminal import survive_lost_output


def start() -> None:
    """Export; never returns."""
    survive_lost_output()
    end_with_starter()
    # Only now: torch takes seconds to load, in which this process could outlive the one that started it.
    from train.export.export import main
    from train.supervision.process_exit import run_and_exit

    run_and_exit(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    start()
