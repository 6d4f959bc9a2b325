"""Work ahead on one thread, so that reading and training overlap."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from configs.errors import ConfigError

Element = TypeVar("Element")


def prefetch(iterator: Generator[Element, None, None], depth: int) -> Generator[Element, None, None]:
    """The elements of ``iterator``, at most ``depth`` made ahead on one thread; 0 makes each when it is asked for.

    The thread starts with the first element asked for. An error of ``iterator`` is raised to the consumer after the
    elements before it. Closing or dropping the returned iterator ends the thread and closes ``iterator``.
    """
    if depth < 0:
        raise ConfigError(f"data.prefetch_batches={depth} must not be negative (0: no thread)")
    return _made_ahead(iterator, depth) if depth else iterator


def _made_ahead(iterator: Generator[Element, None, None], depth: int) -> Generator[Element, None, None]:
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    made: deque[Future[list[Element]]] = deque(pool.submit(_next_of, iterator) for _ in range(depth))
    try:
        while element := made.popleft().result():
            made.append(pool.submit(_next_of, iterator))
            yield element[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _next_of(iterator: Iterator[Element]) -> list[Element]:
    """The next element in a list, or an empty list at the end: a StopIteration must not cross a generator."""
    for element in iterator:
        return [element]
    return []
