"""``python -m benchmarks NAME key=value ...`` runs one benchmark."""

import sys
from collections.abc import Sequence
from importlib import import_module

from configs.errors import USAGE_EXIT_CODE, exit_code_of
from configs.process_exit import exit_at_once

NAMES = (
    "stream",
    "step",
    "scaling",
    "attention",
    "loss",
    "evaluate",
    "recommend",
    "export",
    "checkpoint",
    "prepare",
    "serve",
    "warm_start",
    "follow",
)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that ``arguments`` name; the exit code, 2 for what the user can mend."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [key=value ...]", file=sys.stderr)
        return USAGE_EXIT_CODE
    # Lazily: each benchmark imports other parts, and a broken one must not take the others with it.
    benchmark = import_module(f"benchmarks.bench_{arguments[0]}")
    return exit_code_of(lambda: benchmark.main(list(arguments[1:])))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
