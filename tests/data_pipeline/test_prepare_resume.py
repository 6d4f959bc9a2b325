"""A prepare that is ended at any moment goes on, and the store is the same to the last byte."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from logs import Interrupting, files_of, killed_prepare, random_log

from configs.errors import DataError
from configs.schema import ColumnsConfig, DataConfig
from data_pipeline.prepare import publish, workspace
from data_pipeline.prepare.__main__ import main
from data_pipeline.prepare.partition import spill_files
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.write import history_writer
from data_pipeline.store.manifest import load_manifest

SMALL = {"memory_gib": 5e-6}
"""So little memory that 600 events make several ranges and blocks."""


@pytest.fixture(autouse=True)
def _many_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_writer, "USERS_PER_ROW_GROUP", 2)
    monkeypatch.setattr(history_writer, "ROW_GROUPS_PER_PART", 3)


def log_in(folder: Path, num: int = 600, parts: int = 3) -> str:
    (folder / "log").mkdir()
    rows = random_log(num)
    for k in range(parts):
        rows[k * num // parts : (k + 1) * num // parts].write_parquet(folder / "log" / f"part-{k}.parquet")
    return str(folder / "log")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "deduplicate": True,
            "min_user_events": 8,
            "min_item_events": 12,
            "columns": ColumnsConfig(event_type="event_type"),
        },
    ],
    ids=["plain", "every stage"],
)
def test_interrupted_at_every_sign_of_progress_it_ends_with_the_same_bytes(tmp_path: Path, options: dict) -> None:
    log = log_in(tmp_path)
    prepare(DataConfig(log=log, store=str(tmp_path / "whole"), **SMALL, **options))
    config = DataConfig(log=log, store=str(tmp_path / "store"), **SMALL, **options)
    num_interrupts, moment = 0, 1
    while True:
        try:
            prepare(config, Interrupting(moment))
            break
        except KeyboardInterrupt:
            num_interrupts += 1
            moment = 1 + num_interrupts % 7
        assert not (tmp_path / "store").exists()
        assert num_interrupts < 500, "it must get on between two interrupts"
    assert num_interrupts > 10
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "store", "whole"]


@pytest.mark.parametrize("block", [1, 2, 5, 20])
def test_interrupted_after_a_block_and_before_its_state_it_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    log = log_in(tmp_path)
    prepare(DataConfig(log=log, store=str(tmp_path / "whole"), **SMALL))
    config = DataConfig(log=log, store=str(tmp_path / "store"), **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(spill_files.Spill, "append", raising_after(block, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    prepare(config)
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("block", [1, 2, 5, 20])
def test_a_disk_that_is_full_at_any_block_ends_a_prepare_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    log = log_in(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(spill_files.Spill, "append", raising_after(block, full))
    with pytest.raises(DataError, match="No space left on device"):
        prepare(DataConfig(log=log, store=str(tmp_path / "store"), **SMALL))
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def raising_after(block: int, error: BaseException) -> Callable[[spill_files.Spill, pl.DataFrame], None]:
    """``Spill.append`` that raises once its ``block``-th block is written."""
    append, num_blocks = spill_files.Spill.append, itertools.count(1)

    def append_and_raise(self: spill_files.Spill, events: pl.DataFrame) -> None:
        append(self, events)
        if next(num_blocks) == block:
            raise error

    return append_and_raise


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    prepare(DataConfig(log=log, store=str(tmp_path / "whole"), deduplicate=True, **SMALL))
    options = {"log": log, "store": str(tmp_path / "store"), "deduplicate": True, **SMALL}
    draw, num_kills = np.random.default_rng(0), 0
    while killed_prepare(options, after=int(draw.integers(2, 40))):
        num_kills += 1
    assert num_kills >= 2
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


def test_a_continued_prepare_reads_no_row_and_writes_no_part_twice(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    config = DataConfig(log=log, store=str(tmp_path / "store"), **SMALL)
    first = Interrupting(10**9)
    prepare(DataConfig(log=log, store=str(tmp_path / "whole"), **SMALL), first)
    num_signs = 10**9 - first.after
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Interrupting(num_signs))
    parts = tmp_path / "store.partial" / "histories"
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
    assert before
    again = Interrupting(10**9)
    prepare(config, again)
    assert [name for name, _ in again.stages] == ["writing"]
    assert again.stages[0][1] > 0
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store" / "histories").glob("part-*.parquet")}
    assert {name: after[name] for name in before} == before
    assert any("continues after" in line for line in again.lines)


@pytest.mark.parametrize("change", ["log", "option"])
def test_what_was_left_of_another_log_or_option_is_not_gone_on_with(tmp_path: Path, change: str) -> None:
    log = log_in(tmp_path)
    config = DataConfig(log=log, store=str(tmp_path / "store"), **SMALL)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Interrupting(5))
    if change == "log":
        random_log(200, seed=1).write_parquet(Path(log) / "part-1.parquet")
    else:
        config.deduplicate = True
    expected = prepare(DataConfig(log=log, store=str(tmp_path / "whole"), deduplicate=config.deduplicate))
    progress = Interrupting(10**9)
    assert prepare(config, progress) == expected
    assert progress.stages[0] == ("reading", 0)
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", [b"", b"\0" * 3000])
def test_a_damaged_spill_is_an_error_and_the_next_prepare_starts_anew(tmp_path: Path, damage: bytes) -> None:
    log = log_in(tmp_path)
    config = DataConfig(log=log, store=str(tmp_path / "store"), **SMALL)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Interrupting(12))
    largest = max((tmp_path / "store.spill" / "ranges").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(damage)
    with pytest.raises(DataError, match=r"\.arrow, left of a prepare that was ended, is damaged"):
        prepare(config)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert prepare(config).rows_used == 600


def test_an_older_store_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    log, store = log_in(tmp_path), tmp_path / "store"
    prepare(DataConfig(log=log, store=str(store), **SMALL))
    before = files_of(store)
    for moment in (1, 3, 10):
        with pytest.raises(KeyboardInterrupt):
            prepare(DataConfig(log=log, store=str(store), min_user_events=2, **SMALL), Interrupting(moment))
        assert files_of(store) == before


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["data=log", f"data.log={log_in(tmp_path)}", f"data.store={tmp_path}/store", "data.memory_gib=5e-6"]
    monkeypatch.setattr("data_pipeline.prepare.__main__.ProgressReporter", lambda *_, **__: Interrupting(30))
    assert main(keys) == 130
    assert capsys.readouterr().err == "interrupted; the same command continues from here\n"
    monkeypatch.undo()
    assert main(keys) == 0
    assert "continues after" in capsys.readouterr().err


@pytest.mark.parametrize("is_append", [False, True])
@pytest.mark.parametrize("moment", ["_make_newest", "remove_ours"])
def test_killed_while_a_version_becomes_the_newest_leaves_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_append: bool, moment: str
) -> None:
    log = Path(log_in(tmp_path))
    store = tmp_path / "store"
    first = prepare(DataConfig(log=str(log / "part-0.parquet"), store=str(store)))
    config = DataConfig(log=str(log), store=str(store), append=is_append)
    real, module = workspace.remove_ours, {"_make_newest": publish, "remove_ours": workspace}[moment]

    def interrupted(folder: Path, *others: object) -> None:
        if moment == "_make_newest" or (folder.name == "store.spill" and "prepare.json" in others[0]):
            raise KeyboardInterrupt
        real(folder, *others)

    monkeypatch.setattr(module, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.undo()
    assert load_manifest(str(store)).rows_used == (first.rows_used if moment == "_make_newest" else 600)
    assert (tmp_path / "store.spill").is_dir()
    assert prepare(config).rows_used == 600
    assert load_manifest(str(store), 1) == first
    assert load_manifest(str(store)).version == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "store"]


def test_the_spill_lies_where_it_is_told_and_is_gone_afterwards(tmp_path: Path) -> None:
    log, spill = log_in(tmp_path), tmp_path / "fast" / "disk"
    config = DataConfig(log=log, store=str(tmp_path / "store"), spill_dir=str(spill), **SMALL)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Interrupting(20))
    (kept,) = spill.iterdir()
    assert len(list((kept / "ranges").iterdir())) > 3
    assert not (tmp_path / "store.spill").exists()
    prepare(config)
    assert list(spill.iterdir()) == []
