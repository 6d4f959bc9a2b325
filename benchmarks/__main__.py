"""``python -m benchmarks NAME key=value ...`` runs one benchmark."""

import sys
from collections.abc import Sequence
from importlib import import_module

from configs.errors import ConfigError, DataError

NAMES = ("stream", "step", "evaluate")


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that ``arguments`` name; the exit code, 2 for what the user can mend."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [key=value ...]", file=sys.stderr)
        return 2
    try:
        # Lazily: each benchmark imports other parts, and a broken one must not take the others with it.
        import_module(f"benchmarks.bench_{arguments[0]}").main(list(arguments[1:]))
    except (ConfigError, DataError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
