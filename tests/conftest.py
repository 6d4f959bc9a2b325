"""Shared fixtures. Tests import ``run_ranks`` with ``from ranks import run_ranks``."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores carry up to four ranks
