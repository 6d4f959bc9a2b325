"""``shardrec`` and ``python -m shardrec``: our packages come first on the path, whatever else is called like them.

A project of a user may have a folder ``configs`` or a file ``train.py`` in the current folder or on ``PYTHONPATH``.
This module's name is ours alone, so it can put our folder in front before any other of ours is imported.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent)
PACKAGES = ("configs", "data_pipeline", "models", "train", "launch", "benchmarks")


def put_first() -> str:
    """Put our folder first on the path; the message of what is in the way all the same, empty where nothing is.

    A module of the same name that was imported before, as by ``sitecustomize``, stays what it is.
    """
    sys.path[:] = [ROOT, *(entry for entry in sys.path if entry != ROOT)]
    for name in PACKAGES:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
        if module is not None and not Path(file).resolve().is_relative_to(ROOT):
            return f"{file} is imported as {name!r}, which is the name of a package of Shardrec; rename it"
    return ""


def main() -> int:
    """The command ``shardrec``."""
    if problem := put_first():
        print(f"ConfigError: {problem}", file=sys.stderr)
        return 2
    from launch.cli import main as run_verb

    return run_verb()


if __name__ == "__main__":
    sys.exit(main())
