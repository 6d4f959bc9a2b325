"""Working ahead changes when elements are made, never which."""

import threading
from collections.abc import Iterator

import pytest

from configs.errors import ConfigError
from data_pipeline.stream.prefetch import prefetch


def num_prefetch_threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_every_depth_yields_the_same_elements(depth):
    assert list(prefetch(iter(range(20)), depth)) == list(range(20))


def test_no_more_than_depth_elements_are_made_ahead():
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = prefetch(numbers(), 3)
    for _ in range(10):
        next(ahead)
    ahead.close()
    assert 10 <= len(made) <= 13


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_an_error_reaches_the_consumer_after_the_elements_before_it(depth):
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk is gone")

    ahead = prefetch(broken(), depth)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="disk is gone"):
        next(ahead)
    assert num_prefetch_threads() == 0


def test_closing_ends_the_thread_and_the_source():
    is_closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            is_closed.set()

    ahead = prefetch(endless(), 2)
    next(ahead)
    assert num_prefetch_threads() == 1
    ahead.close()
    assert num_prefetch_threads() == 0
    assert is_closed.is_set()


def test_a_negative_depth_is_refused():
    with pytest.raises(ConfigError, match=r"data\.prefetch_batches=-1"):
        prefetch(iter([]), -1)
