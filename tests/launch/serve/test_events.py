"""What was acknowledged is there, whatever happens to the process."""

import sqlite3
from pathlib import Path

import pytest

from configs.errors import DataError
from launch.serve.events import FILE, Event, EventLog
from launch.serve.histories import merged


def test_a_history_is_in_order_of_time_then_of_arrival_and_an_event_is_kept_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    assert log.append([[Event("u", "b", 20), Event("u", "a", 20)], [Event("u", "c", 10), Event("v", "x", 1)]]) == [
        2,
        2,
    ]
    assert log.append([[Event("u", "b", 20), Event("u", "b", 30)]]) == [1]
    assert log.history("u", 100) == [("c", 10), ("b", 20), ("a", 20), ("b", 30)]
    assert log.history("u", 2) == [("a", 20), ("b", 30)], "the newest"
    log.close()


def test_a_number_and_its_text_are_two_ids(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append([[Event(7, 1, 1), Event("7", "1", 1), Event(2**63 - 1, -(2**63), 1)]])
    assert log.history(7, 9) == [(1, 1)]
    assert log.history("7", 9) == [("1", 1)]
    assert log.history(2**63 - 1, 9) == [(-(2**63), 1)]
    log.close()


def test_a_database_of_another_program_and_a_damaged_one_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / FILE) as other:
        other.execute("CREATE TABLE events (a)")
    other.close()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / FILE).write_bytes(b"no database at all" * 100)
    (tmp_path / "file").touch()
    for name in ("other", "damaged", "file"):
        path = tmp_path / name / FILE
        before = path.read_bytes() if path.exists() else b""
        with pytest.raises(DataError, match=r"serve\.events"):
            EventLog(tmp_path / name)
        assert (path.read_bytes() if path.exists() else b"") == before


def test_posted_events_come_in_their_time_and_what_a_newer_store_holds_is_there_once() -> None:
    stored, posted = [("a", 1), ("b", 5)], [("b", 5), ("c", 3), ("d", 5)]
    assert merged(stored, posted, has_times=True) == ["a", "c", "b", "d"]
    assert merged([("a", 100), ("b", 101)], [("c", 3)], has_times=False) == ["a", "b", "c"]
