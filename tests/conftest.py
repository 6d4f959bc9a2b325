"""Shared settings. Tests import ``run_ranks`` with ``from ranks import run_ranks``."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores carry up to four ranks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", default="1/1", help="K/N: every Nth of the chosen tests, from the Kth on")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave those of ``--part``: of the tests that ``-m`` and ``-k`` have left."""
    part, num_parts = map(int, config.getoption("part").split("/"))
    chosen = items[part - 1 :: num_parts]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen
