"""``python -m train key=value ...``, alone or under torchrun."""

import sys
import time

from shardrec import put_first


def start() -> None:
    """Train, with our own packages whatever lies in the current folder; never returns."""
    if problem := put_first():
        print(f"ConfigError: {problem}", file=sys.stderr)
        sys.exit(2)
    from configs.command_time import began_or_now
    from configs.lifeline import end_with_starter
    from configs.terminal import survive_lost_output

    began = began_or_now()
    survive_lost_output()
    end_with_starter()
    # Only now: torch takes seconds to load, in which this process could outlive the one that started it.
    from train.run import main
    from train.supervision.process_exit import run_and_exit

    run_and_exit(lambda: main(sys.argv[1:], max(time.time() - began, 0.0)))


if __name__ == "__main__":
    start()
