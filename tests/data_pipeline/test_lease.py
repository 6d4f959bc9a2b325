"""One writer a place: whoever comes second is refused by name, and whoever was taken for dead writes no more."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from configs.errors import ConfigError
from data_pipeline.store import lease as leases
from data_pipeline.store import lease_records
from data_pipeline.store.lease import Lease, LeaseError, Presence, refuse_if_written
from data_pipeline.store.lease_records import FOLDER, Writer, records_of
from data_pipeline.store.paths import AnyPath, ObjectPath
from object_store import BUCKET, proxy, server

__all__ = ["proxy", "server"]
HOLDS = """
import sys, time
from data_pipeline.store.lease import Lease
from data_pipeline.store.paths import path_of
Lease(path_of(sys.argv[1]), "run_dir=here")
print("held", flush=True)
time.sleep(1000)
"""
HOLDS_UNTIL_TOLD = """
import sys
from configs.errors import ConfigError
from data_pipeline.store.lease import Lease
from data_pipeline.store.paths import path_of
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = Lease(path_of(sys.argv[1]), "run_dir=here")
except ConfigError as error:
    print("refused", error, flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyPath]:
    """An empty folder, or an empty place in an S3 bucket."""
    if request.param == "folder":
        yield tmp_path / "run"
        return
    request.getfixturevalue("proxy")
    url = ObjectPath(f"s3://{BUCKET}/{tmp_path.name}")
    yield url
    for each in url.files_below():
        each.unlink()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are tenths."""
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    monkeypatch.setattr(lease_records, "STALE_S", 1.0)
    monkeypatch.setattr(leases, "POLL_S", 0.05)
    monkeypatch.setattr(lease_records, "POLL_S", 0.05)


def test_the_second_is_told_who_writes_since_when_and_what_to_do(place: AnyPath):
    with (
        Lease(place, "run_dir=here") as first,
        pytest.raises(LeaseError, match="run_dir=here is being written by process") as error,
    ):
        Lease(place, "run_dir=here")
    text = str(error.value)
    assert (
        f"process {os.getpid()} of {first.writer.user} on {os.uname().nodename}, since {first.writer.since}" in text
    )
    assert "wait until it has ended, end it there" in text
    assert "\n" not in text


def test_writers_that_follow_each_other_have_growing_numbers(place: AnyPath):
    fences = []
    for _ in range(3):
        with Lease(place, "run_dir=here") as lease:
            lease.check()
            fences.append(lease.fence)
    assert fences == [1, 2, 3]


def test_a_killed_writer_is_followed_at_once(place: AnyPath):
    with holder(place) as process:
        process.kill()
        process.wait()
    with Lease(place, "run_dir=here") as lease:
        assert lease.fence == 2


def test_a_stopped_writer_of_this_machine_is_still_the_writer(place: AnyPath):
    with holder(place) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LeaseError, match=f"process {process.pid}"):
            Lease(place, "run_dir=here")


@pytest.mark.usefixtures("quick")
def test_a_writer_of_another_machine_that_renews_its_record_is_left_alone(place: AnyPath):
    is_over = threading.Event()
    elsewhere = record_of_another_machine(place)

    def renew() -> None:
        while not is_over.wait(0.1):
            elsewhere.num_beats += 1
            records_of(place).write(1, elsewhere)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(LeaseError, match="on elsewhere, since"):
            Lease(place, "run_dir=here")
    finally:
        is_over.set()
        thread.join()


@pytest.mark.usefixtures("quick")
def test_a_silent_writer_of_another_machine_is_followed_and_cannot_write_when_it_wakes(
    place: AnyPath, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leases, "BEAT_S", 1000.0)  # it sleeps
    asleep = as_on_another_machine(place, monkeypatch)
    with Lease(place, "run_dir=here") as second:
        assert second.fence == asleep.fence + 1
        with pytest.raises(LeaseError, match="run_dir=here was taken over by process"):
            asleep.check()
        with pytest.raises(LeaseError, match="taken over"):
            asleep.held()
        second.check()
    with pytest.raises(LeaseError, match="taken over"):
        asleep.check()


def test_a_lease_whose_folder_is_moved_away_is_lost(tmp_path: Path):
    lease = Lease(tmp_path / "run", "run_dir=here")
    (tmp_path / "run").rename(tmp_path / "away")
    with pytest.raises(LeaseError, match="removed or moved away"):
        lease.check()
    lease.release()


@pytest.mark.parametrize("num_starts", [2, 5, 10])
def test_of_simultaneous_starts_one_holds_the_lease(place: AnyPath, num_starts: int):
    command = [sys.executable, "-c", HOLDS_UNTIL_TOLD, str(place)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(num_starts)]
    assert all(each.stdout is not None and each.stdout.readline() == "ready\n" for each in started)
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = [each.stdout.readline() for each in started if each.stdout is not None]
    for each in started:
        each.communicate()
    assert sorted(line.split()[0] for line in told) == ["held", *["refused"] * (num_starts - 1)], told
    assert all("is being written by process" in line for line in told if line.startswith("refused"))


def test_where_a_disk_has_no_locks_one_of_simultaneous_starts_holds_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leases, "_try_lock", lambda file, kind: True)
    found: list[Lease | ConfigError] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        try:
            found.append(Lease(tmp_path, "run_dir=here"))
        except ConfigError as error:
            found.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [each for each in found if isinstance(each, Lease)]
    assert len(held) == 1
    held[0].release()


def test_the_next_writer_waits_for_all_processes_of_the_job_before(tmp_path: Path):
    code = "import sys; from pathlib import Path; from data_pipeline.store.lease import Presence\n"
    code += "there = Presence(Path(sys.argv[1]), 'run_dir=here'); print('there', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    member = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=pipe, stdout=pipe, text=True)
    assert member.stdout is not None
    assert member.stdin is not None
    assert member.stdout.readline() == "there\n"
    waits: list[bool] = []

    def end_member() -> None:
        waits.append(member.poll() is None)
        assert member.stdin is not None
        member.stdin.close()
        member.wait()

    with Lease(tmp_path, "run_dir=here", end_member):
        assert waits == [True]


def test_members_do_not_keep_their_own_writer_out(tmp_path: Path):
    with Lease(tmp_path, "run_dir=here") as lease:
        Presence(tmp_path, "run_dir=here")
        lease.check()


def test_looking_changes_nothing(tmp_path: Path):
    refuse_if_written(tmp_path / "run", "run_dir=here")
    assert not (tmp_path / "run").exists()
    with Lease(tmp_path / "run", "run_dir=here"), pytest.raises(LeaseError, match="is being written by"):
        refuse_if_written(tmp_path / "run", "run_dir=here")
    refuse_if_written(tmp_path / "run", "run_dir=here")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": []}', b"\x00\x01", b'{"host": \xa2vm"}'])
def test_a_record_that_nobody_can_read_holds_nobody_up_for_ever(tmp_path: Path, content: bytes):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "00000001.json").write_bytes(content)
    with Lease(tmp_path, "run_dir=here") as lease:
        assert lease.fence == 2


def test_a_process_id_that_was_given_again_is_another_process(place: AnyPath):
    if isinstance(place, Path):
        (place / FOLDER).mkdir(parents=True)
    records_of(place).write(1, Writer(process=os.getpid(), started="1"))
    with Lease(place, "run_dir=here") as lease:
        assert lease.fence == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="run_dir=here cannot be written: Not a directory"):
        Lease(tmp_path / "file", "run_dir=here")
    with pytest.raises(ConfigError, match="run_dir=here cannot be written: No such file"):
        Lease(Path("/proc/here"), "run_dir=here")


class holder:
    """A process that holds the lease of ``place``; a context that ends it."""

    def __init__(self, place: AnyPath) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HOLDS, str(place)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self.process

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()


def record_of_another_machine(place: AnyPath) -> Writer:
    """As a machine that is not this one would have left it."""
    if isinstance(place, Path):
        (place / FOLDER).mkdir(parents=True)
    writer = Writer(host="elsewhere", kernel="another")
    records_of(place).write(1, writer)
    return writer


def as_on_another_machine(place: AnyPath, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """A lease that a process on another machine took, whose locks this machine does not see."""
    with monkeypatch.context() as patch:
        patch.setattr(lease_records, "this_kernel", lambda: "another")
        patch.setattr(leases, "_try_lock", lambda file, kind: True)
        return Lease(place, "run_dir=here")
