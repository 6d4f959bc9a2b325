"""Two writers who come at once where no lock helps: whatever the order of their steps, one at most has the lease."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from data_pipeline.store import lease as leases
from data_pipeline.store import lease_records
from data_pipeline.store.lease import Lease, LeaseError
from data_pipeline.store.lease_records import FOLDER, Writer, records_of

NAMES = ("a", "b")
RUNS = range(12)
"""How many steps one writer takes before the other one does, and then that one: 12 are the whole of most ways."""


WHILE_PAUSED = 100
"""Steps in which a writer that does nothing is taken for gone."""


class Turns:
    """Grants steps to two threads, in an order that is given. Threads that it does not know pass."""

    def __init__(self, runs: Sequence[int], first: int) -> None:
        """``runs``: steps of the ``first`` writer, then of the other one, and so on; then one each in turn."""
        self._order = [(first + number) % 2 for number, steps in enumerate(runs) for _ in range(steps)]
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._granted: int | None = None
        self._known: dict[int, int] = {}
        self.num_steps = 0

    def step(self) -> None:
        """Called before whatever another process can see, or be seen by."""
        number = self._known.get(threading.get_ident())
        if number is None:
            return
        with self._changed:
            self._waiting.add(number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._granted == number)
            self._granted = None
            self._waiting.discard(number)

    def run(self, actions: Sequence[Callable[[], None]]) -> None:
        """Both to their ends."""
        threads = [threading.Thread(target=self._one, args=each) for each in enumerate(actions)]
        for thread in threads:
            thread.start()
        last = 1
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._granted is None and self._are_all_waiting(threads))
                if not self._waiting:
                    break
                wanted = self._order.pop(0) if self._order else 1 - last
                last = wanted if wanted in self._waiting else min(self._waiting)
                self._granted, self.num_steps = last, self.num_steps + 1
                self._changed.notify_all()
        for thread in threads:
            thread.join()

    def _one(self, number: int, action: Callable[[], None]) -> None:
        self._known[threading.get_ident()] = number
        try:
            action()
        finally:
            with self._changed:
                del self._known[threading.get_ident()]
                self._changed.notify_all()

    def _are_all_waiting(self, threads: Sequence[threading.Thread]) -> bool:
        return len(self._waiting) == len(self._known) and all(
            thread.ident in self._known or not thread.is_alive() for thread in threads
        )


class Bucket:
    """A place in an object store, of which each request is a step."""

    def __init__(self, turns: Turns, objects: dict[str, bytes], path: str = "") -> None:
        self._turns, self._objects, self._path = turns, objects, path

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(self._turns, self._objects, f"{self._path}/{name}")

    @property
    def name(self) -> str:
        return PurePosixPath(self._path).name

    def files_below(self) -> list["Bucket"]:
        self._turns.step()
        return [Bucket(self._turns, self._objects, path) for path in self._objects if path.startswith(self._path)]

    def read_bytes(self) -> bytes:
        self._turns.step()
        try:
            return self._objects[self._path]
        except KeyError:
            raise FileNotFoundError(self._path) from None

    def write_bytes(self, content: bytes) -> None:
        self._turns.step()
        self._objects[self._path] = content

    def unlink(self) -> None:
        self._turns.step()
        if self._objects.pop(self._path, None) is None:
            raise FileNotFoundError(self._path)


class Folder(type(Path())):  # type: ignore[misc]
    """A folder that several machines mount and that has no locks: each call is a step, a listing is two."""

    turns: Turns

    def glob(self, pattern: str) -> Iterator[Path]:
        self.turns.step()
        listed = {each.name for each in super().glob(pattern)}
        half = sorted(listed)[: len(listed) // 2 + 1]
        self.turns.step()
        found = {each.name for each in super().glob(pattern)}  # what came meanwhile among the names already passed
        rest = {name for name in found if not half or name > half[-1]}  # is not seen
        return iter([self / name for name in sorted({*half, *rest})])

    def open(self, *arguments: Any, **named: Any) -> Any:
        self.turns.step()
        return super().open(*arguments, **named)

    def replace(self, target: Any) -> Path:
        self.turns.step()
        return super().replace(target)

    def unlink(self, missing_ok: bool = False) -> None:
        self.turns.step()
        super().unlink(missing_ok=missing_ok)


class Clock:
    """Of each writer's own: it goes on when its writer sleeps."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._now = turns, {}

    def monotonic(self) -> float:
        return self._now.get(threading.get_ident(), 0.0)

    def sleep(self, seconds: float) -> None:
        self._turns.step()
        self._now[threading.get_ident()] = self.monotonic() + seconds


@pytest.fixture
def before(request: pytest.FixtureRequest) -> Writer | None:
    """The writer before both: none, one that has let go, one that was killed."""
    return {
        "none": None,
        "released": Writer(has_released=True),
        "killed": Writer(process=2**22 + 1, started="1"),
    }[request.param]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize("before", ["none", "released", "killed"], indirect=True)
@pytest.mark.parametrize("are_on_one_machine", [True, False])
def test_whatever_the_order_of_steps_one_writer_at_most_has_the_lease_and_its_number_is_the_newest(
    kind: str, before: Writer | None, are_on_one_machine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number, (first, *runs) in enumerate(product((0, 1), RUNS, (*RUNS, WHILE_PAUSED))):
        turns = Turns(runs, first)
        place: Any = Bucket(turns, {})
        if kind == "folder":
            place = type("Mounted", (Folder,), {"turns": turns})(tmp_path / str(number))
            (place / FOLDER).mkdir(parents=True)
        if before:
            records_of(place).write(7, before)
        with monkeypatch.context() as patch:
            held = both_start(place, turns, patch, are_on_one_machine)
            still = [each for each in held if is_held(each)]
            assert len(still) <= 1, (first, runs)
            assert len({each.fence for each in held}) == len(held), (first, runs)
            assert still or WHILE_PAUSED in runs, "nobody is kept out by nobody"
            if still:
                assert still[0].fence == records_of(place).newest(), (first, runs)
                assert still[0].fence > (7 if before else 0)
            for each in held:
                each.release()


def both_start(place: Any, turns: Turns, patch: pytest.MonkeyPatch, are_on_one_machine: bool) -> list[Lease]:
    """The leases that two writers were given."""
    held, own = list[Lease](), threading.local()
    kernel = lease_records.this_kernel()
    clock = Clock(turns)

    def start(name: str) -> None:
        own.name = name
        with suppress(LeaseError):
            held.append(Lease(place, "run_dir=here"))

    for module in (leases, lease_records):
        patch.setattr(module, "time", clock)
    patch.setattr(leases, "BEAT_S", 1000.0)
    patch.setattr(lease_records, "STALE_S", 2.0)
    patch.setattr(leases, "_try_lock", lambda file, kind: True)
    patch.setattr(lease_records.secrets, "token_hex", lambda size: getattr(own, "name", "test") * 2 * size)
    if not are_on_one_machine:
        patch.setattr(lease_records, "this_kernel", lambda: f"{kernel} {getattr(own, 'name', '')}".strip())
    turns.run([lambda name=name: start(name) for name in NAMES])  # type: ignore[misc]
    return held


def is_held(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseError:
        return False
    return True
