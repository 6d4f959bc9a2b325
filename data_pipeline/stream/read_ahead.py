"""Read what comes next on threads, within a budget of bytes."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

NUM_THREADS = 2
"""Arrow frees the interpreter lock while it decodes."""


class Sized(Protocol):
    """Knows its memory."""

    @property
    def num_bytes(self) -> int:
        """Memory in bytes."""
        ...


Key = TypeVar("Key")
Loaded = TypeVar("Loaded", bound=Sized)


@dataclass(slots=True)
class _Held(Generic[Key, Loaded]):
    """A place that is being read, or was read and waits to be taken."""

    place: Key
    reserved: int
    future: "Future[Loaded | None]"

    @property
    def num_bytes(self) -> int:
        """What it takes at most while it is read, and what it takes afterwards."""
        is_read = self.future.done() and self.future.exception() is None
        loaded = self.future.result() if is_read else None
        return self.reserved if loaded is None else loaded.num_bytes


class ReadAhead(Generic[Key, Loaded]):
    """The things at ``places``, taken one after another; those that come next are loaded on threads.

    What is loaded or being loaded and was not yet taken never exceeds ``num_bytes``: a place whose ``bytes_at_most``
    does not fit is loaded when it is taken, and so is all that comes after an error. At most ``num_places`` are
    ahead, so that a small store is not read for many epochs to come. Not safe to share between threads that take.
    """

    def __init__(
        self,
        places: Iterator[Key],
        load: Callable[[Key], Loaded],
        bytes_at_most: Callable[[Key], int],
        *,
        num_bytes: int,
        num_places: int,
    ) -> None:
        self._places, self._load, self._bytes_at_most = places, load, bytes_at_most
        self._num_bytes, self._num_places = num_bytes, num_places
        self._ahead: deque[_Held[Key, Loaded]] = deque()
        self._pool = ThreadPoolExecutor(max_workers=NUM_THREADS, thread_name_prefix="read-ahead")
        self._next: Key | None = next(places, None)
        self._has_failed = False

    def take(self, place: Key) -> Loaded:
        """What is at ``place``, which must be the next of ``places``; raises what its loading raised."""
        if not self._ahead:
            self._fill()
        if self._ahead:
            assert self._ahead[0].place == place, "things are taken in the order of places"
            found = self._ahead[0].future.result()
            loaded = self._load(place) if found is None else found
            self._ahead.popleft()
        else:
            assert self._next == place, "things are taken in the order of places"
            loaded = self._load(place)
            self._next = next(self._places, None)
        self._fill()
        return loaded

    def close(self) -> None:
        """End the threads; what was not taken is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def _fill(self) -> None:
        held = sum(ahead.num_bytes for ahead in self._ahead)
        coming: list[tuple[Key, int]] = []
        while self._next is not None and len(self._ahead) + len(coming) < self._num_places:
            reserved = self._bytes_at_most(self._next)
            if held + reserved > self._num_bytes:
                break
            held += reserved
            coming.append((self._next, reserved))
            self._next = next(self._places, None)
        futures = {index: self._started(coming[index][0]) for index in _far_apart(len(coming))}
        self._ahead += [_Held(*coming[index], futures[index]) for index in range(len(coming))]

    def _started(self, place: Key) -> "Future[Loaded | None]":
        future = self._pool.submit(self._loaded_ahead, place)
        future.add_done_callback(self._note)
        return future

    def _loaded_ahead(self, place: Key) -> Loaded | None:
        """None after an error: a store that answers with one is not asked for more than what is taken."""
        return None if self._has_failed else self._load(place)

    def _note(self, future: "Future[Loaded | None]") -> None:
        self._has_failed |= not future.cancelled() and future.exception() is not None


def _far_apart(count: int) -> list[int]:
    """Indices below ``count`` so ordered that what threads take at one time lies far apart: neighbours may need the
    same part of a file, for which one thread would wait while the other decodes it."""
    part = -(-count // NUM_THREADS)
    return [index for first in range(part) for index in range(first, count, part)]
