"""Events that were posted, in an embedded database that outlives a kill of the process."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from configs.errors import DataError
from launch.serve.id_map import RawId

FILE = "events.sqlite"
APPLICATION = 0x53445243
"""Tells our databases from those of other programs."""
VERSION = 1
"""``user_version`` of a database: 0, without features of events, is brought to it when it is opened."""
_BUSY_S = 30.0
"""Another server may write to the same database."""
# No types: SQLite keeps 7 a number and "7" a text. One event is kept once, however often a client repeats it.
_TABLE = """
CREATE TABLE IF NOT EXISTS events
(sequence INTEGER PRIMARY KEY, user NOT NULL, item NOT NULL, timestamp INTEGER NOT NULL, features TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS events_of_user ON events (user, timestamp, item);
"""
_ADD_FEATURES = "ALTER TABLE events ADD COLUMN features TEXT"
_NEWEST = "SELECT item, timestamp, features FROM events WHERE user = ? ORDER BY timestamp DESC, sequence DESC LIMIT ?"
_INSERT = "INSERT OR IGNORE INTO events (user, item, timestamp, features) VALUES (?, ?, ?, ?)"


class Event(NamedTuple):
    """``timestamp`` in milliseconds since 1970, ``features`` as :func:`features_as_json` gives them."""

    user: RawId
    item: RawId
    timestamp: int
    features: str | None = None


class EventLog:
    """One connection writes, from one thread at a time, and another reads beside it."""

    def __init__(self, folder: Path) -> None:
        """Opens ``folder/events.sqlite``, or makes it. Raises :class:`DataError` where that cannot be."""
        self.path = folder / FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._writer = self._opened()
            self._reader = self._opened()
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{self.path} cannot be opened ({error}); set serve.events=FOLDER to another folder, or to none to "
                f"keep no events"
            ) from error

    def append(self, posts: Sequence[Sequence[Event]]) -> list[int]:
        """Keep the events of several posts, and return how many of each are new. They are on the disk by then.

        One transaction: all are kept or none. Raises :class:`sqlite3.Error`.
        """
        counts = []
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            for post in posts:
                before = self._writer.total_changes
                self._writer.executemany(_INSERT, post)
                counts.append(self._writer.total_changes - before)
        return counts

    def history(self, user: RawId, limit: int) -> list[tuple[RawId, int, str | None]]:
        """The newest ``limit`` items of ``user`` with times and features, the oldest first. Raises
        :class:`sqlite3.Error`."""
        with closing(self._reader.execute(_NEWEST, (user, limit))) as rows:
            return rows.fetchall()[::-1]

    def __len__(self) -> int:
        """Events that are kept."""
        with closing(self._reader.execute("SELECT COUNT(*) FROM events")) as rows:
            return int(rows.fetchone()[0])

    def close(self) -> None:
        """Nothing is read or written any more."""
        self._reader.close()
        self._writer.close()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if tables and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            connection.close()
            raise DataError(f"{self.path} is a database of another program; name another serve.events")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a commit waits until its log is on the disk
        self._refuse_newer(connection)
        connection.executescript(f"PRAGMA application_id = {APPLICATION}; BEGIN IMMEDIATE; {_TABLE} COMMIT;")
        _add_features(connection)
        return connection

    def _refuse_newer(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            connection.close()
            raise DataError(
                f"{self.path} was written by a newer Shardrec (form {found}, this one reads {VERSION}); name another "
                f"serve.events, or serve with the newer one"
            )


def _add_features(connection: sqlite3.Connection) -> None:
    """Databases of before have no features; the servers that share one with us need not know of the new column."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        names = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        if "features" not in names:
            connection.execute(_ADD_FEATURES)
        connection.execute(f"PRAGMA user_version = {VERSION}")
