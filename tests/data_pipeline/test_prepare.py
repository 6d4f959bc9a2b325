"""What `prepare` promises: the same store from any layout of a log, nothing lost, and one clear error."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig, DataConfig
from data_pipeline.prepare.__main__ import main
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import Manifest, item_counts, load_manifest

ML100K = Path(__file__).parents[3] / "shared" / "data" / "ml100k" / "log.parquet"
needs_ml100k = pytest.mark.skipif(not ML100K.exists(), reason=f"{ML100K} is not on this machine")


def log_of(folder: Path, rows: list[tuple], name: str = "log.parquet") -> str:
    """Write ``rows`` of (user, item, timestamp, event_type) as Parquet; the path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["user_id", "item_id", "timestamp", "event_type"]
    pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None, strict=False).write_parquet(path)
    return str(path)


def random_rows(num: int, seed: int = 0) -> list[tuple]:
    draw = np.random.default_rng(seed)
    users, items, times = draw.integers(0, 40, num), draw.integers(0, 30, num), draw.integers(0, 50, num)
    return [(int(u), int(i), int(t), "view" if i % 3 else "buy") for u, i, t in zip(users, items, times, strict=True)]


def histories_of(store: str | Path) -> dict[object, list[tuple]]:
    """Raw user -> its (raw item, time) in order."""
    raw = pq.read_table(Path(store) / "items.parquet").column("raw_item").to_pylist()
    table = pl.read_parquet(Path(store) / "histories" / "*.parquet")
    return {
        user: [(raw[i], t) for i, t in zip(items, times, strict=True)]
        for user, _, items, times in table.select("raw_user", "user", "item", "timestamp").iter_rows()
    }


def accounted(manifest: Manifest) -> int:
    return manifest.rows_used + sum(manifest.rows_filtered.values()) + sum(manifest.rows_quarantined.values())


def left_in(folder: Path, log: str) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path != Path(log))


def test_histories_are_in_time_order_and_in_order_of_arrival_within_a_tie(tmp_path: Path) -> None:
    rows = random_rows(2000)
    manifest = prepare(DataConfig(log=log_of(tmp_path, rows), store=str(tmp_path / "store")))
    expected: dict[int, list[tuple]] = {}
    for user, item, time, _ in rows:
        expected.setdefault(user, []).append((item, time))
    expected = {user: sorted(events, key=lambda event: event[1]) for user, events in expected.items()}
    found = histories_of(tmp_path / "store")
    assert found == expected
    assert list(found) == sorted(found)
    ties = sum(a[1] == b[1] for events in expected.values() for a, b in pairwise(events))
    assert manifest.num_time_ties == ties > 0
    assert manifest.longest_history == max(map(len, expected.values()))
    assert load_manifest(str(tmp_path / "store")) == manifest


def test_items_are_dense_by_descending_count_then_raw_id(tmp_path: Path) -> None:
    prepare(DataConfig(log=log_of(tmp_path, random_rows(500)), store=str(tmp_path / "store")))
    table = pl.read_parquet(tmp_path / "store" / "items.parquet")
    keys = [(-count, raw) for count, raw in table.select("count", "raw_item").iter_rows()]
    assert keys == sorted(keys)
    assert table["item"].to_list() == list(range(len(table)))
    assert (
        item_counts(str(tmp_path / "store"), load_manifest(str(tmp_path / "store"))).tolist()
        == table["count"].to_list()
    )
    assert table.schema["item"] == pl.Int32


def test_the_store_has_the_promised_types_and_bounded_row_groups(tmp_path: Path) -> None:
    rows = [(u, u % 7, t, "view") for u in range(2500) for t in range(2)]
    log = log_of(tmp_path, rows)
    prepare(DataConfig(log=log, store=str(tmp_path / "one")))
    prepare(DataConfig(log=log, store=str(tmp_path / "many"), memory_gib=1e-4))
    groups = {}
    for name in ("one", "many"):
        file = pq.ParquetFile(tmp_path / name / "histories" / "part-00000.parquet")
        groups[name] = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        assert str(file.schema_arrow.field("item").type) == "list<element: int32>"
        assert str(file.schema_arrow.field("timestamp").type) == "list<element: int64>"
        assert file.read().column("user").to_pylist() == list(range(2500))
    assert groups["one"] == groups["many"] == [1024, 1024, 452]


@needs_ml100k
def test_a_log_shuffled_into_fifty_files_has_the_same_fingerprint_in_any_memory(tmp_path: Path) -> None:
    rows = pl.read_parquet(ML100K).sample(fraction=1.0, shuffle=True, seed=3)
    (tmp_path / "log").mkdir()
    for k in range(50):
        rows.gather_every(50, k).write_parquet(tmp_path / "log" / f"part-{k:02d}.parquet")
    whole = prepare(DataConfig(log=str(ML100K), store=str(tmp_path / "whole")))
    glob = str(tmp_path / "log" / "*.parquet")
    parts = prepare(DataConfig(log=glob, store=str(tmp_path / "parts"), memory_gib=0.005))
    assert parts == whole
    assert (whole.num_users, whole.num_items, whole.num_events, whole.num_time_ties) == (943, 1682, 100_000, 0)
    assert histories_of(tmp_path / "whole") == histories_of(tmp_path / "parts")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("has_string_ids", [False, True])
def test_the_format_of_a_log_does_not_reach_its_fingerprint(
    tmp_path: Path, suffix: str, has_string_ids: bool
) -> None:
    rows = [(f"ü{u}" if has_string_ids else u, i, t, e) for u, i, t, e in random_rows(300)]
    parquet = log_of(tmp_path, rows)
    table = pl.read_parquet(parquet)
    text = tmp_path / f"log.{suffix}"
    table.write_csv(text) if suffix == "csv" else table.write_ndjson(text)
    expected = prepare(DataConfig(log=parquet, store=str(tmp_path / "a")))
    assert prepare(DataConfig(log=str(text), store=str(tmp_path / "b"))) == expected


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    rows = [(1, 10, 5, "view"), (1, 11, 5, "view"), (2, 10, 6, "view")]
    changes = [rows, [rows[1], rows[0], rows[2]], [*rows[:2], (3, 10, 6, "view")], [*rows[:2], (2, 10, 7, "view")]]
    changes.append([(1, 10, 5, "view"), (2, 11, 5, "view"), (2, 10, 6, "view")])
    prints = set()
    for k, changed in enumerate(changes):
        log = log_of(tmp_path, changed, f"{k}.parquet")
        prints.add(prepare(DataConfig(log=log, store=str(tmp_path / f"store-{k}"))).fingerprint)
    assert len(prints) == len(changes)


def test_broken_rows_are_quarantined_with_reasons_and_counted(tmp_path: Path) -> None:
    rows: list[tuple] = [(1, 2, float(t), "view") for t in range(100)]
    rows += [(None, 2, 1.0, "a"), (1, None, 1.0, "b"), (1, 2, None, "c"), (1, 2, -1.0, "d"), (1, 2, 1.5, "e")]
    rows += [(1, 2, float("nan"), "f")]
    log = log_of(tmp_path, rows)
    manifest = prepare(DataConfig(log=log, store=str(tmp_path / "store"), max_bad_fraction=0.1))
    assert manifest.rows_quarantined == {
        "null_user": 1,
        "null_item": 1,
        "null_timestamp": 1,
        "negative_timestamp": 1,
        "non_integer_timestamp": 2,
    }
    assert manifest.rows_read == accounted(manifest) == 106
    kept = pl.read_parquet(tmp_path / "store" / "quarantine" / "*.parquet")
    assert dict(zip(kept["event_type"], kept["reason"], strict=True)) == {
        "a": "null_user",
        "b": "null_item",
        "c": "null_timestamp",
        "d": "negative_timestamp",
        "e": "non_integer_timestamp",
        "f": "non_integer_timestamp",
    }


def test_too_many_broken_rows_end_the_work_and_leave_nothing(tmp_path: Path) -> None:
    log = log_of(tmp_path, [(1, 2, 3, "view")] * 97 + [(None, 2, 3, "view")] * 3)
    with pytest.raises(DataError, match=r"0\.03.*data\.max_bad_fraction=0\.01"):
        prepare(DataConfig(log=log, store=str(tmp_path / "store")))
    assert left_in(tmp_path, log) == []
    manifest = prepare(DataConfig(log=log, store=str(tmp_path / "store"), max_bad_fraction=0.03))
    assert manifest.rows_quarantined == {"null_user": 3}


@pytest.mark.parametrize("memory_gib", [2.0, 3e-5])
def test_every_row_is_used_filtered_or_quarantined(tmp_path: Path, memory_gib: float) -> None:
    rows: list[tuple] = [*random_rows(1500), *random_rows(200), (None, 1, 1, "view"), (1, 1, 1, None)]
    config = DataConfig(
        log=log_of(tmp_path, rows),
        store=str(tmp_path / "store"),
        columns=ColumnsConfig(event_type="event_type"),
        event_types=["view"],
        deduplicate=True,
        min_user_events=20,
        min_item_events=40,
        memory_gib=memory_gib,
    )
    manifest = prepare(config)
    views = [row for row in rows[:-2] if row[3] == "view"]
    core = list(dict.fromkeys(views))
    num_duplicates = len(views) - len(core)
    num_distinct = len(core)
    while True:
        of_user = {u: sum(r[0] == u for r in core) for u in {r[0] for r in core}}
        of_item = {i: sum(r[1] == i for r in core) for i in {r[1] for r in core}}
        smaller = [r for r in core if of_user[r[0]] >= 20 and of_item[r[1]] >= 40]
        if smaller == core:
            break
        core = smaller
    assert manifest.rows_read == accounted(manifest) == len(rows)
    assert manifest.rows_quarantined == {"null_user": 1}
    assert manifest.rows_filtered == {
        "event_type": len(rows) - 1 - len(views),
        "duplicate": num_duplicates,
        "min_events": num_distinct - len(core),
    }
    assert 0 < manifest.num_events == len(core) < num_distinct


def test_a_finished_store_is_recognised_until_the_log_or_an_option_changes(tmp_path: Path) -> None:
    log, store = log_of(tmp_path, random_rows(50)), tmp_path / "store"
    first = prepare(DataConfig(log=log, store=str(store)))
    stamp = (store / "manifest.json").stat().st_mtime_ns
    assert prepare(DataConfig(log=log, store=str(store))) == first
    assert (store / "manifest.json").stat().st_mtime_ns == stamp
    assert prepare(DataConfig(log=log, store=str(store), min_user_events=2)) != first
    log_of(tmp_path, random_rows(60))
    assert prepare(DataConfig(log=log, store=str(store))).rows_read == 60
    assert left_in(tmp_path, log) == ["store"]


def test_a_missing_column_is_named_with_its_file_and_the_columns_there(tmp_path: Path) -> None:
    log = log_of(tmp_path, random_rows(5))
    config = DataConfig(log=log, store=str(tmp_path / "store"), columns=ColumnsConfig(item="product"))
    with pytest.raises(DataError, match=r"log\.parquet .*'product' .*user_id, item_id, timestamp, event_type"):
        prepare(config)
    assert left_in(tmp_path, log) == []


def test_what_cannot_be_used_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    def check(log: str, match: str, store: str = "store", **options: object) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError, match=match):
            prepare(DataConfig(log=log, store=str(tmp_path / store), **options))
        assert sorted(tmp_path.rglob("*")) == before

    good = log_of(tmp_path, random_rows(5000), "good.parquet")
    content = Path(good).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "hole.parquet").write_bytes(content[:50] + b"\xff" * 4000 + content[4050:])
    (tmp_path / "none.csv").write_text("user_id,item_id,timestamp\n")
    (tmp_path / "zero.csv").write_text("")
    (tmp_path / "notes.txt").write_text("not a log")
    (tmp_path / "bad.jsonl").write_text('{"user_id": 1, "item_id": 2, "timestamp": 3}\n{"user_id": 1, "it')
    check(log_of(tmp_path, [([1], 1, 1, "view")], "type.parquet"), r"type\.parquet.*'user_id'.*List")
    check(
        log_of(tmp_path, [(1, 1, "monday", "view")], "time.parquet"), "texts like 'monday', which are read as no time"
    )
    check(log_of(tmp_path, [("a", 1, 1, "view")], "mix/b.parquet"), "no event .* is left", min_user_events=2)
    for name in ("cut.parquet", "hole.parquet"):
        check(str(tmp_path / name), rf"{name} cannot be read")
    check(str(tmp_path / "bad.jsonl"), "1 of 2 rows are broken .bad_json 1")
    check(str(tmp_path / "none.csv"), "holds no rows")
    check(str(tmp_path / "zero.csv"), "holds no rows")
    check(str(tmp_path / "absent.parquet"), "absent.*names no file")
    check(str(tmp_path / "notes.txt"), "unknown format")
    check(good, "cannot be written", store="notes.txt/store")
    check(good, "exists and is no store", store="mix")


def test_options_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    log = log_of(tmp_path, random_rows(5))
    with pytest.raises(ConfigError, match=r"data\.columns\.event_type"):
        prepare(DataConfig(log=log, store=str(tmp_path / "store"), event_types=["view"]))
    with pytest.raises(ConfigError, match=r"data\.store"):
        prepare(DataConfig(log=log))


def test_a_missing_or_foreign_manifest_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a store"):
        load_manifest(str(tmp_path))
    for text, match in (("{", "cannot be read"), ('{"format_version": 99}', "format_version 99")):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(DataError, match=match):
            load_manifest(str(tmp_path))


def test_the_command_makes_a_synthetic_log_and_prints_its_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["data=synthetic", f"data.log={tmp_path}/log.parquet", f"data.store={tmp_path}/store"]
    keys += ["data.synthetic.num_users=60", "data.synthetic.num_items=50"]
    assert main(keys) == 0
    manifest = load_manifest(str(tmp_path / "store"))
    out = capsys.readouterr().out
    assert manifest.fingerprint in out
    assert f"{manifest.num_events:,}" in out


def test_the_command_fails_with_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data=log", f"data.log={tmp_path}/absent", f"data.store={tmp_path}/store"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
