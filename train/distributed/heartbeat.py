"""Signs of life of a rank that works alone while the others wait for it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HEARTBEAT_S = 1.0
"""How often a rank says that it gets on."""


@contextmanager
def heartbeating(heartbeat: Callable[[], None]) -> Iterator[None]:
    """Call ``heartbeat`` every second, on a thread, while the block works without collectives.

    For work that ends by itself, such as counting and requests that have a timeout: a hang in it is not noticed.
    """
    is_over = threading.Event()

    def keep_beating() -> None:
        while not is_over.wait(HEARTBEAT_S):
            heartbeat()

    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
