"""``python -m benchmarks.sweep key=a,b ... sweep_dir=DIR``: every combination of the values, and an index of them."""

import sys
from collections.abc import Sequence

from benchmarks.sweep.options import options_of
from benchmarks.sweep.sweep import sweep
from configs.errors import exit_code_of
from configs.process_exit import exit_at_once


def main(words: Sequence[str]) -> int:
    """The exit code: 0, 1 where a run failed, 2 after one line on stderr, 75 after a stop."""
    return exit_code_of(lambda: sweep(options_of(words)))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
