"""Events by user, time and arrival: fastest for a log that is in order of time."""

import numpy as np
import polars as pl


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    """``events`` (user, timestamp, ..., in order of arrival) sorted by (user, timestamp, arrival).

    One sort of integers that hold user and place, 2-3 times faster than a sort of rows by columns; only users with
    an event that came after a later one are sorted by time as well.
    """
    if len(events) == 0:
        return events
    keys = _user_keys(events["user"])
    if (keys[1:] < keys[:-1]).any():
        places = _stable_order(keys)
        events, keys = events[places], keys[places]
    time = events["timestamp"].to_numpy()
    is_same_user = keys[1:] == keys[:-1]
    goes_back = is_same_user & (time[1:] < time[:-1])
    if not goes_back.any():
        return events
    user = np.concatenate([[0], np.cumsum(~is_same_user)])
    is_unsorted = np.zeros(user[-1] + 1, dtype=bool)
    is_unsorted[user[1:][goes_back]] = True
    rows = np.flatnonzero(is_unsorted[user])
    places = np.arange(len(events))
    places[rows] = rows[np.lexsort((time[rows], user[rows]))]
    return events[places]


def run_lengths(users: pl.Series) -> np.ndarray:
    """Length of each run of equal ``users``, int64; at least one row."""
    return users.rle().struct.field("len").cast(pl.Int64).to_numpy()


def runs_of(users: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Value and length of each run of equal ``users``; at least one row."""
    lengths = run_lengths(users)
    return users.gather(np.concatenate([[0], np.cumsum(lengths)[:-1]])), lengths


def _user_keys(users: pl.Series) -> np.ndarray:
    """Integers from 0 that are ordered as ``users`` are, and small enough to be joined with a row's place."""
    if users.dtype == pl.Int64:
        low, high = int(users.min()), int(users.max())  # type: ignore[arg-type]
        if (high - low + 1) * len(users) < 2**63:
            return users.to_numpy() - low
    different = users.unique().sort()  # a rank of all of them sorts every string: three times as long
    keys = pl.DataFrame({"user": different, "key": np.arange(len(different))})
    return users.alias("user").to_frame().join(keys, on="user", how="left", maintain_order="left")["key"].to_numpy()


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """What ``argsort(keys, kind="stable")`` gives, by a sort of values: NumPy has vector instructions for it."""
    joined = keys * len(keys) + np.arange(len(keys))
    joined.sort()
    return joined % len(keys)
