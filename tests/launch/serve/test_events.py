"""What was acknowledged is there, whatever happens to the process."""

import sqlite3
from pathlib import Path

import pytest

from configs.errors import DataError
from launch.serve.events import APPLICATION, FILE, Event, EventLog
from launch.serve.histories import merged


def test_a_history_is_in_order_of_time_then_of_arrival_and_an_event_is_kept_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    assert log.append([[Event("u", "b", 20), Event("u", "a", 20)], [Event("u", "c", 10), Event("v", "x", 1)]]) == [
        2,
        2,
    ]
    assert log.append([[Event("u", "b", 20), Event("u", "b", 30)]]) == [1]
    assert log.history("u", 100) == [("c", 10, None), ("b", 20, None), ("a", 20, None), ("b", 30, None)]
    assert log.history("u", 2) == [("a", 20, None), ("b", 30, None)], "the newest"
    log.close()


def test_a_number_and_its_text_are_two_ids(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append([[Event(7, 1, 1), Event("7", "1", 1), Event(2**63 - 1, -(2**63), 1)]])
    assert log.history(7, 9) == [(1, 1, None)]
    assert log.history("7", 9) == [("1", 1, None)]
    assert log.history(2**63 - 1, 9) == [(-(2**63), 1, None)]
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
    stored, posted = [("a", 1, ()), ("b", 5, ())], [("b", 5, None), ("c", 3, None), ("d", 5, None)]
    found = merged(stored, posted, has_times=True)
    assert found == [("a", 1, ()), ("c", 3, None), ("b", 5, ()), ("d", 5, None)]
    found = merged([("a", 100, ()), ("b", 101, ())], [("c", 3, None)], has_times=False)
    assert [item for item, _, _ in found] == ["a", "b", "c"]


def test_an_older_database_is_read_and_gets_features(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as older:
        older.execute(f"PRAGMA application_id = {APPLICATION}")
        older.execute(
            "CREATE TABLE events (sequence INTEGER PRIMARY KEY, user NOT NULL, item NOT NULL, "
            "timestamp INTEGER NOT NULL)"
        )
        older.execute("CREATE UNIQUE INDEX events_of_user ON events (user, timestamp, item)")
        older.executemany("INSERT INTO events (user, item, timestamp) VALUES (?, ?, ?)", [(7, 1, 10), (7, 2, 20)])
    older.close()
    logs = [EventLog(tmp_path), EventLog(tmp_path)]  # two servers share it
    assert logs[0].append([[Event(7, 1, 10, '{"kind":"view"}'), Event(7, 3, 15, '{"kind":"buy"}')]]) == [1]
    for log in logs:
        assert log.history(7, 9) == [(1, 10, None), (3, 15, '{"kind":"buy"}'), (2, 20, None)]
        log.close()
    with sqlite3.connect(tmp_path / FILE) as again:
        again.execute("INSERT OR IGNORE INTO events (user, item, timestamp) VALUES (8, 1, 10)")
    again.close()
    log = EventLog(tmp_path)
    assert log.history(8, 9) == [(1, 10, None)], "a server of before may go on writing"
    log.close()


def test_a_database_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    EventLog(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(DataError, match=r"newer Shardrec.*serve\.events"):
        EventLog(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
