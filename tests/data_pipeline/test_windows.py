"""A log cut by time: nothing is lost, nothing is in the wrong window, and the windows together are the log."""

from pathlib import Path

import polars as pl
import pytest
from logs import FEATURES, feature_log, random_log

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, FollowConfig, Window
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.windows import Cut, config_of_window, cut_log, folder_of_window

HOUR = 3_600_000
BEGIN = 1_700_000_000_000 // (24 * HOUR) * 24 * HOUR


def hourly_log(num: int = 600, kind: str = "dense", gap: bool = True) -> pl.DataFrame:
    """Events of 10 hours with ties, none in the seventh."""
    log = random_log(num, kind=kind).with_columns(timestamp=BEGIN + pl.col("timestamp") * (10 * HOUR // 50))
    hour = (pl.col("timestamp") - BEGIN) // HOUR
    return log.filter(hour != 6) if gap else log


def cut(folder: Path, log: pl.DataFrame, follow: FollowConfig, **options: object) -> tuple[Cut, DataConfig]:
    folder.mkdir(parents=True, exist_ok=True)
    log.write_parquet(folder / "log.parquet")
    config = DataConfig(log=str(folder / "log.parquet"), **options)
    return cut_log(config, follow, folder / "cut", ProgressReporter()), config


def in_window(folder: Path, window: int) -> pl.DataFrame:
    files = sorted(folder_of_window(folder / "cut", window).rglob("*.parquet"))
    return pl.concat(map(pl.read_parquet, files)) if files else pl.DataFrame()


@pytest.mark.parametrize("memory_gib", [8.0, 1e-5])
def test_each_event_is_in_the_window_of_its_time_and_in_no_other(tmp_path: Path, memory_gib: float) -> None:
    log = hourly_log()
    found, _ = cut(tmp_path, log, FollowConfig(window=Window.HOUR, first_windows=3), memory_gib=memory_gib)
    assert found.first_start_ms == BEGIN + 3 * HOUR
    assert found.num_windows == 7
    assert found.num_events[4] == 0
    assert sum(found.num_events) == found.rows_read == len(log)
    for window in range(8):
        low, end = (0 if window == 0 else found.start_ms(window)), found.start_ms(window + 1)
        own = log.filter(pl.col("timestamp").is_between(low, end, closed="left"))
        events = in_window(tmp_path, window)
        assert found.num_events[window] == len(own) == len(events)
        if len(own):
            expected = [*own["user_id"].to_list()], [*own["item_id"].to_list()]
            assert (sorted(events["user"].to_list()), sorted(events["item"].to_list())) == tuple(
                map(sorted, expected)
            )


@pytest.mark.parametrize(("kind", "memory_gib"), [("dense", 8.0), ("string", 8.0), ("dense", 1e-5)])
def test_a_store_that_grew_by_the_windows_holds_what_one_of_the_whole_log_does(
    tmp_path: Path, kind: str, memory_gib: float
) -> None:
    log = hourly_log(kind=kind)
    found, config = cut(tmp_path, log, FollowConfig(window=Window.HOUR, first_windows=2), memory_gib=memory_gib)
    for window in range(found.num_windows + 1):
        if found.num_events[window]:
            of_window = config_of_window(config, tmp_path / "cut", window, tmp_path / "store")
            grown = prepare(of_window, id_types=found.types())
    whole = prepare(DataConfig(log=config.log, store=str(tmp_path / "whole")))
    assert grown.fingerprint == whole.fingerprint
    assert grown.num_time_ties == whole.num_time_ties


def test_features_keep_their_values(tmp_path: Path) -> None:
    log = feature_log(300).with_columns(timestamp=BEGIN + pl.col("timestamp") * HOUR)
    follow = FollowConfig(window=Window.HOUR, first_windows=10)
    found, config = cut(tmp_path, log, follow, features=FEATURES, max_bad_fraction=1.0)
    stores = {}
    for name, windows in {"grown": range(found.num_windows + 1)}.items():
        for window in windows:
            if found.num_events[window]:
                of_window = config_of_window(config, tmp_path / "cut", window, tmp_path / name)
                stores[name] = prepare(of_window, id_types=found.types())
    log.filter(pl.col("timestamp") < found.first_start_ms).write_parquet(tmp_path / "a.parquet")
    log.filter(pl.col("timestamp") >= found.first_start_ms).write_parquet(tmp_path / "b.parquet")
    by_hand = {"store": str(tmp_path / "hand"), "features": FEATURES, "max_bad_fraction": 1.0}
    prepare(DataConfig(log=str(tmp_path / "a.parquet"), **by_hand))
    added = prepare(DataConfig(log=str(tmp_path / "b.parquet"), append=True, **by_hand))
    assert stores["grown"].features.keys() == added.features.keys()
    assert stores["grown"].feature_codes == added.feature_codes
    assert stores["grown"].fingerprint == added.fingerprint


def test_ids_that_are_numbers_at_first_stay_texts_where_later_ones_are(tmp_path: Path) -> None:
    times = [BEGIN + hour * HOUR for hour in range(4)]
    log = pl.DataFrame({"user_id": ["1", "2", "1", "anna"], "item_id": ["7", "7", "8", "8"], "timestamp": times})
    found, config = cut(tmp_path, log, FollowConfig(window=Window.HOUR, first_windows=1))
    for window in range(4):
        of_window = config_of_window(config, tmp_path / "cut", window, tmp_path / "store")
        grown = prepare(of_window, id_types=found.types())
    assert (grown.num_users, grown.num_items, grown.num_events) == (3, 2, 4)


def test_windows_begin_at_a_date_or_with_the_week(tmp_path: Path) -> None:
    log = hourly_log(gap=False)
    start = FollowConfig(window=Window.HOUR, start=f"{pl.Series([BEGIN + 90 * 60_000]).cast(pl.Datetime('ms'))[0]}")
    found, _ = cut(tmp_path / "date", log, start)
    assert found.first_start_ms == BEGIN + 90 * 60_000
    assert found.num_events[0] == log.filter(pl.col("timestamp") < BEGIN + 90 * 60_000).height
    weeks = log.with_columns(timestamp=BEGIN + (pl.col("timestamp") - BEGIN) * 100)
    found, _ = cut(tmp_path / "week", weeks, FollowConfig(window=Window.WEEK, first_windows=1))
    monday = pl.Series([found.first_start_ms]).cast(pl.Datetime("ms"))[0]
    assert (monday.weekday(), monday.hour, monday.minute) == (0, 0, 0)


def test_broken_and_unwanted_rows_are_counted(tmp_path: Path) -> None:
    log = hourly_log().with_columns(pl.col("user_id").cast(pl.String))
    log = pl.concat([log, log[:5].with_columns(user_id=pl.lit(None, pl.String))])
    options = {"columns": DataConfig().columns, "event_types": ["buy"], "max_bad_fraction": 0.5}
    options["columns"].event_type = "event_type"
    found, _ = cut(tmp_path, log, FollowConfig(window=Window.HOUR, first_windows=3), **options)
    assert sum(found.rows_quarantined.values()) == 5
    assert found.rows_read == sum(found.num_events) + found.rows_filtered + 5
    assert pl.read_parquet(tmp_path / "cut" / "quarantine" / "*.parquet").height == 5
    options["max_bad_fraction"] = 0.0
    with pytest.raises(DataError, match=r"data\.max_bad_fraction=0"):
        cut(tmp_path / "strict", log, FollowConfig(window=Window.HOUR, first_windows=3), **options)


@pytest.mark.parametrize(
    ("follow", "told"),
    [
        ({"start": "2100-01-01"}, "follow.start=2100-01-01: data.log="),
        ({"start": "1990-01-01"}, "no event before it"),
        ({"first_windows": 10}, "follow.first_windows=10: data.log="),
    ],
)
def test_a_beginning_that_leaves_nothing_on_one_side_is_refused(
    tmp_path: Path, follow: dict[str, object], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        cut(tmp_path, hourly_log(), FollowConfig(window=Window.HOUR, **follow))


def test_a_wrong_clock_is_told_instead_of_making_a_hundred_thousand_windows(tmp_path: Path) -> None:
    log = hourly_log().with_columns(timestamp=pl.when(pl.int_range(pl.len()) == 3).then(1).otherwise("timestamp"))
    with pytest.raises(DataError, match=r"spans 4.*data\.source\.earliest_time"):
        cut(tmp_path, log, FollowConfig(window=Window.HOUR))


def test_a_cut_that_was_killed_begins_anew_and_a_whole_one_is_taken(tmp_path: Path) -> None:
    left = tmp_path / "cut.partial" / "unordered" / "5"
    left.mkdir(parents=True)
    (left / "part-000000.parquet").write_bytes(b"half")
    follow = FollowConfig(window=Window.HOUR, first_windows=3)
    first, config = cut(tmp_path, hourly_log(), follow)
    assert not left.exists()
    Path(config.log).unlink()
    assert cut_log(config, follow, tmp_path / "cut", ProgressReporter()) == first


def test_numbers_of_windows_are_checked() -> None:
    for each in ([], [0], [1, 1]):
        with pytest.raises(ConfigError, match=r"follow\.update_every"):
            FollowConfig(update_every=each)
    with pytest.raises(ConfigError, match="set one of them"):
        FollowConfig(start="2024-01-01", first_windows=3)
    with pytest.raises(ConfigError, match=r"follow\.keep_optimizer"):
        FollowConfig(keep_optimizer=True, warm_start=False)
