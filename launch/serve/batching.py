"""Jobs that arrive together are done together, in one thread beside the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """More jobs wait than may."""


class Batches(Generic[Job, Result]):
    """Runs ``work`` over batches of jobs, one batch at a time. While it runs, further jobs gather for the next."""

    def __init__(
        self,
        work: Callable[[list[Job]], list[Result]],
        *,
        name: str,
        max_size: int,
        max_wait_s: float,
        max_queue: int,
    ) -> None:
        """``work`` returns one result a job, in their order. A job waits ``max_wait_s`` for others, at most."""
        self._work, self._max_size, self._max_wait_s, self._max_queue = work, max_size, max_wait_s, max_queue
        self._waiting: deque[tuple[Job, asyncio.Future[Result]]] = deque()
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._is_closed = False

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    async def result_of(self, job: Job) -> Result:
        """Wait for ``job``; raises :class:`QueueFullError`, and what ``work`` raises."""
        if len(self._waiting) >= self._max_queue:
            raise QueueFullError
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._changed.set()
        return await future

    async def run(self) -> None:
        """Do jobs until :meth:`close` was called and none is left."""
        while True:
            if not self._waiting:
                if self._is_closed:
                    break
                self._changed.clear()
                await self._changed.wait()
                continue
            await self._gather()
            batch = [self._waiting.popleft() for _ in range(min(self._max_size, len(self._waiting)))]
            await self._do(batch)
        self._thread.shutdown()

    def close(self) -> None:
        """No job comes any more."""
        self._is_closed = True
        self._changed.set()

    async def _gather(self) -> None:
        """Wait until a batch is full or its time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._max_wait_s
        while len(self._waiting) < self._max_size and not self._is_closed and (left := end - loop.time()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):  # time is over
                async with asyncio.timeout(left):
                    await self._changed.wait()

    async def _do(self, batch: list[tuple[Job, "asyncio.Future[Result]"]]) -> None:
        jobs = [job for job, _ in batch]
        task = asyncio.get_running_loop().run_in_executor(self._thread, self._work, jobs)
        await asyncio.wait([task])
        error = task.exception()
        results = [] if error else task.result()
        for place, (_, future) in enumerate(batch):
            if future.done():  # whoever asked has gone
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(results[place])
