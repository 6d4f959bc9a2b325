"""``python -m launch`` is ``shardrec``."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - pip would have refused it; this is for who runs from the sources
    sys.exit("shardrec needs Python 3.11 or newer: make setup PYTHON=python3.11")

from shardrec import main

if __name__ == "__main__":
    sys.exit(main())
