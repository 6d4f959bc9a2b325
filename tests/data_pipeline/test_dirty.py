"""Every input of `tests/dirty` is accepted by rule, quarantined and counted, or refused with its place."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.source import Layout, SourceConfig, TimeUnit
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read import formats, sources
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.store.manifest import Manifest
from dirty.case import Case, Event, Outcome
from dirty.page import CASES, PAGE, page
from processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def config_of(case: Case, log: str, store: Path) -> DataConfig:
    source = dict(case.source)
    source |= {"layout": Layout(source.get("layout", "auto")), "time_unit": TimeUnit(source.get("time_unit", "ms"))}
    return DataConfig(
        log=log,
        store=str(store),
        columns=case.columns_config(),
        source=SourceConfig(**source),
        **{"max_bad_fraction": 1.0} | case.options,
    )


def histories_of(events: list[Event]) -> dict[object, list[tuple[object, object]]]:
    """User -> (item, time) by time, in order of arrival where times are equal."""
    histories: dict[object, list[tuple[object, object]]] = {}
    for user, item, time in events:
        histories.setdefault(user, []).append((item, time))
    return {user: sorted(events, key=lambda event: event[1]) for user, events in histories.items()}  # type: ignore[arg-type, return-value]


def histories_in(store: Path) -> dict[object, list[tuple[object, object]]]:
    raw = pl.read_parquet(store / "items.parquet")["raw_item"]
    table = pl.read_parquet(store / "histories" / "*.parquet").select("raw_user", "item", "timestamp")
    return {user: [(raw[i], t) for i, t in zip(items, times, strict=True)] for user, items, times in table.rows()}


def check_nothing_is_lost(manifest: Manifest, case: Case) -> None:
    assert manifest.rows_quarantined == case.reasons
    assert manifest.rows_filtered == case.filtered
    assert manifest.rows_used == manifest.num_events == len(case.events)
    assert manifest.rows_read == len(case.events) + sum(case.reasons.values()) + sum(case.filtered.values())


def check_quarantine(store: Path, case: Case) -> None:
    paths = sorted((store / "quarantine").glob("*.parquet"))
    kept = [row for path in paths for row in pl.read_parquet(path).select("reason", "log_file", "log_row").rows()]
    reasons = [reason for reason, _, _ in kept]
    assert {reason: reasons.count(reason) for reason in sorted(set(reasons))} == case.reasons
    places = {(file, row) for _, file, row in kept}
    assert len(places) == len(kept), "each row has a place of its own"


def check_refused(message: str, case: Case) -> None:
    missing = [part for part in case.says if part not in message]
    assert not missing, message


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.must_run_unprivileged], ids=lambda case: case.name
)
def test_an_input_has_the_outcome_of_the_catalogue(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.is_removed_once_open:
        monkeypatch.setattr(sources, "scan_file", _scan_and_remove)
    folder = tmp_path / "input"
    folder.mkdir()
    config, store = config_of(case, case.make(folder), tmp_path / "store"), tmp_path / "store"
    if case.outcome is Outcome.REFUSED:
        with pytest.raises(DataError) as told:
            prepare(config)
        check_refused(str(told.value), case)
        assert [path.name for path in tmp_path.iterdir()] == ["input"]
        return
    check_nothing_is_lost(prepare(config), case)
    assert histories_in(store) == histories_of(list(case.events))
    check_quarantine(store, case)


def _scan_and_remove(path: Path, names: dict[str, str], source: SourceConfig, view: FileView) -> formats.Scan:
    scan = formats.scan_file(path, names, source)
    scan.rows.collect_schema()
    path.unlink()
    return scan


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that another user may enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("case", [case for case in CASES if case.must_run_unprivileged], ids=lambda case: case.name)
def test_an_input_that_only_root_may_read_is_refused(case: Case, public_folder: Path) -> None:
    program = (
        "import os, sys; from data_pipeline.prepare.__main__ import main; from configs.load import load_config\n"
    )
    program += "load_config(sys.argv[2:]); os.setuid(int(sys.argv.pop(1))) if os.getuid() == 0 else None\n"
    program += "sys.exit(main(sys.argv[1:]))"
    keys = [f"data.log={case.make(public_folder)}", f"data.store={public_folder}/store"]
    command = [sys.executable, "-c", program, str(NOBODY), *keys]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(public_folder)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert answer.returncode == 2, answer.stderr
    check_refused(answer.stderr, case)


def test_the_catalogue_is_large_and_its_names_are_different() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert {case.outcome for case in CASES} == set(Outcome)
    assert all(case.rule for case in CASES if case.outcome is Outcome.ACCEPTED)


def test_the_page_is_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: PYTHONPATH=.:tests python -m dirty.page"
