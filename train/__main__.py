"""``python -m train key=value ...``, alone or under torchrun."""

import sys

from shardrec import put_first


def start() -> None:
    """Train, with our own packages whatever lies in the current folder; never returns."""
    if problem := put_first():
        print(f"ConfigError: {problem}", file=sys.stderr)
        sys.exit(2)
    from train.run import main
    from train.supervision.process_exit import run_and_exit

    run_and_exit(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    start()
