"""Appending day by day gives what preparing all days at once gives, and never harms the store that is there."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from logs import IDS, ML100K, Interrupting, files_of, killed_prepare, needs_ml100k, newest_of, random_log

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig, DataConfig
from data_pipeline.prepare.__main__ import main
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.write import history_writer
from data_pipeline.store.manifest import QUARANTINE, Manifest, load_manifest, paths_of


def days_in(folder: Path, rows: pl.DataFrame, num_days: int = 5) -> list[str]:
    """Cut ``rows`` into files of different sizes; their paths."""
    folder.mkdir()
    cuts = [len(rows) * k * k // num_days**2 for k in range(num_days + 1)]
    paths = [str(folder / f"day-{k}.parquet") for k in range(num_days)]
    for path, low, high in zip(paths, cuts, cuts[1:], strict=False):
        rows[low:high].write_parquet(path)
    return paths


def append_all(paths: list[str], store: Path, **options: object) -> Manifest:
    """Append each of ``paths`` to ``store``; checks after each that no item of before has another dense id."""
    before: dict[object, int] = {}
    for path in paths:
        manifest = prepare(DataConfig(log=path, store=str(store), append=True, **options))
        now = dict(pl.read_parquet(newest_of(store) / "items.parquet").select("raw_item", "item").iter_rows())
        assert {raw: now[raw] for raw in before} == before
        assert sorted(now.values()) == list(range(manifest.num_items))
        before = now
    return manifest


def histories_of(store: Path) -> pl.DataFrame:
    """Raw users with their raw items and times, in the order of the files."""
    raw = pl.read_parquet(newest_of(store) / "items.parquet").select("item", "raw_item")
    rows = pl.read_parquet(newest_of(store) / "histories" / "*.parquet").explode("item", "timestamp")
    return rows.join(raw, on="item", how="left", maintain_order="left").select("raw_user", "raw_item", "timestamp")


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("memory_gib", [2.0, 2e-5])
def test_five_days_are_as_all_at_once(tmp_path: Path, kind: str, deduplicate: bool, memory_gib: float) -> None:
    paths = days_in(tmp_path / "log", random_log(700, kind=kind))
    options = {"deduplicate": deduplicate, "memory_gib": memory_gib}
    expected = prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "whole"), **options))
    assert append_all(paths, tmp_path / "store", **options) == expected
    assert histories_of(tmp_path / "store").equals(histories_of(tmp_path / "whole"))
    counts = [
        pl.read_parquet(newest_of(tmp_path / name) / "items.parquet").drop("item").sort("raw_item")
        for name in ("store", "whole")
    ]
    assert counts[0].equals(counts[1])
    assert expected.rows_filtered.get("duplicate", 0) > 0 or not deduplicate


@needs_ml100k
@pytest.mark.parametrize("is_shuffled", [False, True], ids=["in time", "late events"])
def test_five_days_of_a_real_log_are_as_all_at_once(tmp_path: Path, is_shuffled: bool) -> None:
    rows = pl.read_parquet(ML100K)
    rows = rows.sample(fraction=1.0, shuffle=True, seed=5) if is_shuffled else rows
    paths = days_in(tmp_path / "log", rows)
    expected = prepare(DataConfig(log=str(ML100K), store=str(tmp_path / "whole")))
    assert append_all(paths, tmp_path / "store", memory_gib=0.005) == expected


def test_new_items_come_after_the_old_ones_by_descending_count(tmp_path: Path) -> None:
    first, second = random_log(300, num_items=10), random_log(300, seed=1, num_items=25)
    paths = days_in(tmp_path / "log", pl.concat([first, second]), 2)
    append_all(paths, tmp_path / "store")
    table = pl.read_parquet(newest_of(tmp_path / "store") / "items.parquet")
    num_old = pl.read_parquet(paths[0])["item_id"].n_unique()
    new = table[num_old:]
    keys = [(-count, raw) for count, raw in new.select("count", "raw_item").iter_rows()]
    assert len(keys) > 5
    assert keys == sorted(keys)


def test_broken_and_filtered_rows_are_counted_over_all_days(tmp_path: Path) -> None:
    rows = random_log(400).with_columns(
        pl.when(pl.int_range(pl.len()) % 50 == 7).then(None).otherwise(pl.col("user_id")).alias("user_id")
    )
    paths = days_in(tmp_path / "log", rows, 3)
    options = {"max_bad_fraction": 0.5, "event_types": ["view"], "columns": ColumnsConfig(event_type="event_type")}
    expected = prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "whole"), **options))
    found = append_all(paths, tmp_path / "store", deduplicate=False, **options)
    assert found == expected
    assert found.rows_quarantined == {"null_user": 8}
    kept = [
        pl.concat(pl.read_parquet(path) for path, _ in paths_of(str(tmp_path / name), manifest, QUARANTINE))
        for name, manifest in (("store", found), ("whole", expected))
    ]
    assert len(kept[0]) == len(kept[1]) == 8
    accounted = found.rows_used + sum(found.rows_filtered.values()) + sum(found.rows_quarantined.values())
    assert found.rows_read == accounted == len(rows)


def test_a_file_is_added_once_whatever_its_name(tmp_path: Path) -> None:
    paths = days_in(tmp_path / "log", random_log(300), 3)
    store = tmp_path / "store"
    append_all(paths[:2], store)
    before = files_of(store)
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(Path(paths[1]).read_bytes())
    for path in (paths[0], paths[1], str(copy)):
        progress = Interrupting(10**9)
        manifest = prepare(DataConfig(log=path, store=str(store), append=True), progress)
        assert manifest.rows_read == load_manifest(str(store)).rows_read
        (line,) = progress.lines
        assert "not added again" in line
        assert path in line
    assert files_of(store) == before
    expected = prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "whole")))
    assert prepare(DataConfig(log=str(tmp_path / "log"), store=str(store), append=True)) == expected


def test_a_known_file_with_other_content_is_refused(tmp_path: Path) -> None:
    (path,) = days_in(tmp_path / "log", random_log(100), 1)
    prepare(DataConfig(log=path, store=str(tmp_path / "store")))
    random_log(120).write_parquet(path)
    with pytest.raises(DataError, match=r"day-0\.parquet was added .* with other content"):
        prepare(DataConfig(log=path, store=str(tmp_path / "store"), append=True))


def test_what_an_append_cannot_do_right_is_refused_by_name(tmp_path: Path) -> None:
    paths = days_in(tmp_path / "log", random_log(200), 2)
    store = str(tmp_path / "store")
    prepare(DataConfig(log=paths[0], store=store))
    typed = ColumnsConfig(event_type="event_type")
    for match, options in {
        r"data\.min_user_events=5 does not go with data\.append": {"min_user_events": 5},
        r"data\.min_item_events=5 does not go with data\.append": {"min_item_events": 5},
        r"data\.deduplicate=true does not go with": {"deduplicate": True, "columns": typed},
        r"data\.deduplicate=True, but data\.store=.* was made with False": {"deduplicate": True},
        r"data\.event_types=\['buy'\], but": {"event_types": ["buy"], "columns": typed},
    }.items():
        with pytest.raises(ConfigError, match=match):
            prepare(DataConfig(log=paths[1], store=store, append=True, **options))


@pytest.mark.parametrize("name", ["min_user_events", "min_item_events"])
def test_a_k_core_is_not_appended_to_and_the_remedy_that_is_named_works(tmp_path: Path, name: str) -> None:
    paths = days_in(tmp_path / "log", random_log(200), 2)
    store, cored = str(tmp_path / "store"), {name: 2}
    prepare(DataConfig(log=paths[0], store=store, **cored))
    for given in (cored, {}, {name: 1}):
        with pytest.raises(ConfigError, match=rf"was made with data\.{name}=2 .* without data\.append"):
            prepare(DataConfig(log=paths[1], store=store, append=True, **given), None, given)
    assert load_manifest(store).version == 1
    grown = prepare(DataConfig(log=str(tmp_path / "log"), store=store, **cored))
    assert grown.version == 2
    whole = prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "whole"), **cored))
    assert grown.fingerprint == whole.fingerprint


def test_ids_are_read_as_in_the_store_or_refused(tmp_path: Path) -> None:
    log, strings = tmp_path / "log", tmp_path / "strings"
    log.mkdir()
    (log / "1.csv").write_text("user_id,item_id,timestamp\nann,07,1\nbob,8,2\n")
    (log / "2.csv").write_text("user_id,item_id,timestamp\n5,9,3\nann,10,4\n")
    expected = prepare(DataConfig(log=str(log), store=str(tmp_path / "whole")))
    assert append_all([str(log / "1.csv"), str(log / "2.csv")], strings) == expected
    (numbers,) = days_in(tmp_path / "numbers", random_log(50), 1)
    prepare(DataConfig(log=numbers, store=str(tmp_path / "integers")))
    told = r"1\.csv: column 'user_id' \(data\.columns\.user\) holds 'ann'.*integers are whole numbers"
    with pytest.raises(DataError, match=told):
        prepare(DataConfig(log=str(log / "1.csv"), store=str(tmp_path / "integers"), append=True))
    both = append_all([str(log / "1.csv"), numbers], tmp_path / "both")
    assert both.fingerprint == prepare_all([log / "1.csv", Path(numbers)], tmp_path).fingerprint


def prepare_all(files: list[Path], folder: Path) -> Manifest:
    """A store of ``files`` prepared at once, in their order."""
    log = folder / "at_once"
    log.mkdir()
    for number, file in enumerate(files):
        (log / f"{number}{file.suffix}").write_bytes(file.read_bytes())
    return prepare(DataConfig(log=str(log), store=str(folder / "at_once.store")))


def test_a_store_of_several_days_is_not_made_anew_from_one_by_mistake(tmp_path: Path) -> None:
    paths = days_in(tmp_path / "log", random_log(200), 2)
    store = tmp_path / "store"
    append_all(paths, store)
    before = files_of(store)
    with pytest.raises(DataError, match=r"holds the files of 1 appends"):
        prepare(DataConfig(log=paths[0], store=str(store)))
    prepare(DataConfig(log=str(tmp_path / "log"), store=str(store)))
    assert files_of(store) == before


def test_an_append_ended_at_any_moment_leaves_the_old_store_whole_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_writer, "USERS_PER_ROW_GROUP", 2)
    monkeypatch.setattr(history_writer, "ROW_GROUPS_PER_PART", 1)
    paths = days_in(tmp_path / "log", random_log(500), 2)
    store, options = tmp_path / "store", {"deduplicate": True, "memory_gib": 5e-6}
    expected = prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "whole"), **options))
    prepare(DataConfig(log=paths[0], store=str(store), **options))
    before, num_interrupts = files_of(store), 0
    config = DataConfig(log=paths[1], store=str(store), append=True, **options)
    while True:
        try:
            assert prepare(config, Interrupting(2 + num_interrupts % 5)) == expected
            break
        except KeyboardInterrupt:
            num_interrupts += 1
            assert files_of(store) == before
            assert num_interrupts < 500, "it must get on between two interrupts"
    assert num_interrupts > 5
    manifest = before.pop("manifest.json")
    assert before.items() < files_of(store).items(), "no file of a version changes"
    assert (store / "versions" / "000001" / "manifest.json").read_bytes() == manifest


@pytest.mark.slow
def test_a_killed_append_leaves_the_old_store_whole(tmp_path: Path) -> None:
    paths = days_in(tmp_path / "log", random_log(500), 2)
    store, draw, num_kills = tmp_path / "store", np.random.default_rng(1), 0
    options = {"deduplicate": True, "memory_gib": 5e-6}
    expected = prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "whole"), **options))
    prepare(DataConfig(log=paths[0], store=str(store), **options))
    before, manifest = files_of(store), load_manifest(str(store))
    del before["manifest.json"]
    append = {"log": paths[1], "store": str(store), "append": True, **options}
    while killed_prepare(append, after=int(draw.integers(2, 40))):
        num_kills += 1
        assert before.items() <= files_of(store).items()
        assert load_manifest(str(store)) in (manifest, expected)
    assert num_kills >= 2
    assert load_manifest(str(store)) == expected


def test_the_command_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = days_in(tmp_path / "log", random_log(50), 1)
    keys = ["data=log", f"data.log={path}", f"data.store={tmp_path}/store", "data.append=true"]
    keys.append("data.source.time_unit=ms")
    assert main(keys) == 0
    assert "added" not in capsys.readouterr().err
    assert main(keys) == 0
    assert "not added again" in capsys.readouterr().err


def test_an_append_takes_the_options_of_the_store_and_refuses_others_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [rows.rename({"user_id": "uid"}) for rows in (random_log(300), random_log(300, seed=1))]
    for k, rows in enumerate(days):
        rows.write_csv(tmp_path / f"{k}.csv", separator=";")
    options = [
        *("data.columns.user=uid", "data.columns.event_type=event_type", "data.event_types=[buy]"),
        *("data.deduplicate=false", "data.source.separator=;", "data.features.kind.column=event_type"),
    ]
    store = [f"data.store={tmp_path}/store"]
    assert main([*store, *options, f"data.log={tmp_path}/0.csv"]) == 0
    append = [*store, "data.append=true", f"data.log={tmp_path}/1.csv"]
    capsys.readouterr()
    for other in ("data.event_types=[]", "data.deduplicate=true", "data.features.kind.max_values=7"):
        assert main([*append, other]) == 2
        assert other.partition("=")[0] in capsys.readouterr().err
    assert main(append) == 0
    grown = load_manifest(f"{tmp_path}/store")
    assert grown.rows_used == sum((rows["event_type"] == "buy").sum() for rows in days)
    assert list(grown.features) == ["kind"]


@pytest.mark.parametrize(
    ("first", "second", "options"),
    [
        ("u1 i1\nu2 i2\nu1 i3\n", "u2 i1\nu3 i9\n", ["data.source.layout=history_lines"]),
        (
            "u1::i1::1700000000\nu1::i2::1700000060\n",
            "u1::i3::1700000120\n",
            [
                *("data.source.layout=delimited", "data.source.separator=::", "data.source.time_unit=s"),
                "data.source.header=[user_id,item_id,timestamp]",
            ],
        ),
        (
            "u1\ti1\nu2\ti2\n",
            "u2\ti1\n",
            [
                *("data.source.layout=delimited", "data.source.separator=tab", "data.columns.timestamp="),
                "data.source.header=[user_id,item_id]",
            ],
        ),
    ],
)
def test_an_append_needs_none_of_the_options_that_the_store_remembers(
    tmp_path: Path, first: str, second: str, options: list[str]
) -> None:
    for name, text in (("1.txt", first), ("2.txt", second)):
        (tmp_path / name).write_text(text)
    for store, again in (("told", options), ("remembered", [])):
        assert main([f"data.store={tmp_path}/{store}", f"data.log={tmp_path}/1.txt", *options]) == 0
        assert main([f"data.store={tmp_path}/{store}", f"data.log={tmp_path}/2.txt", "data.append=true", *again]) == 0
    told, remembered = (load_manifest(f"{tmp_path}/{store}") for store in ("told", "remembered"))
    assert remembered == told
    assert remembered.rows_used == remembered.rows_read
