"""Input made at random: every row is accounted for, and damage ends with a message, never with a crash or a hang."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.source import SourceConfig, TimeUnit
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import Manifest
from dirty.fuzz import accounted
from processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
MILLISECONDS = SourceConfig(time_unit=TimeUnit.MS)  # a few random times tell no unit
LATEST = SourceConfig().latest_ms
BLANK = re.compile("[\t\x0b\x0c\x1e \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
"""Unicode's white space, and the record separator."""
MISSING = {"", *SourceConfig().missing}

ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.none(), st.integers(0, 3))
times = st.one_of(st.integers(-(10**18), 10**18), st.none(), st.floats(), st.integers(0, 10**12))
words = st.text(st.sampled_from("ab7 ,\"\n'é漢;\\N"), max_size=6) | st.sampled_from(["NULL", "NaN", "12"])


def prepared(data: bytes, name: str) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / name
        log.write_bytes(data)
        return prepare(DataConfig(log=str(log), store=f"{folder}/store", source=MILLISECONDS, max_bad_fraction=1.0))


def reason_of_time(time: float | None) -> str | None:
    if time is None:
        return "null_timestamp"
    if math.isnan(time) or math.isinf(time) or time != math.floor(time) or not -(2**63) <= time < 2**63:
        return "non_integer_timestamp"
    if time < 0:
        return "negative_timestamp"
    return "timestamp_too_late" if time >= LATEST else None


def check(rows: list[str | None], data: bytes, name: str) -> None:
    """``rows`` are the reasons, None where a row is sound."""
    expected = {reason: rows.count(reason) for reason in sorted({reason for reason in rows if reason is not None})}
    if not any(reason is None for reason in rows):
        with pytest.raises(DataError, match=r"no event|holds no rows"):
            prepared(data, name)
        return
    manifest = prepared(data, name)
    assert manifest.rows_quarantined == expected
    assert manifest.rows_used == rows.count(None)
    assert manifest.rows_read == accounted(manifest) == len(rows)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ids, ids, times), min_size=1, max_size=30))
def test_rows_of_parquet_are_used_or_quarantined_for_their_reason(
    rows: list[tuple[int | None, int | None, float | None]],
) -> None:
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Float64}
    table = pl.DataFrame(rows, schema=schema, orient="row", strict=False)
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    reasons = [
        "null_user" if user is None else "null_item" if item is None else reason_of_time(time)
        for user, item, time in table.rows()
    ]
    check(reasons, buffer.getvalue(), "log.parquet")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(words, words, st.integers(0, 10**12) | st.sampled_from(["", "x", "-3"])), min_size=1))
def test_rows_of_csv_are_used_or_quarantined_whatever_stands_in_their_fields(
    rows: list[tuple[str, str, int | str]],
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
        [("user_id", "item_id", "timestamp"), *rows]
    )
    of_time = {"": "null_timestamp", "x": "non_integer_timestamp", "-3": "negative_timestamp"}
    reasons = [
        "null_user" if user.strip() in MISSING else "null_item" if item.strip() in MISSING else of_time.get(str(time))
        for user, item, time in rows
    ]
    check(reasons, text.getvalue().encode(), "log.csv")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.binary(max_size=20).map(lambda line: b"-" + line.replace(b"\n", b"").replace(b"\r", b"")), max_size=20
    )
)
def test_lines_that_are_no_json_are_quarantined_and_the_others_used(junk: list[bytes]) -> None:
    sound = json.dumps({"user_id": 1, "item_id": 2, "timestamp": 3}).encode()
    lines = [line for broken in junk for line in (broken, sound)] + [sound]
    manifest = prepared(b"\n".join(lines), "log.jsonl")
    assert manifest.rows_used == len(junk) + 1
    assert manifest.rows_read == accounted(manifest)
    num_blank = sum(not BLANK.sub("", line.decode(errors="replace")) for line in junk)
    assert sum(manifest.rows_quarantined.values()) == len(junk) - num_blank


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["log.csv", "log.tsv", "log.jsonl", "log.csv.gz", "log.parquet"]))
def test_any_bytes_are_prepared_or_refused(data: bytes, name: str) -> None:
    header = b"user_id,item_id,timestamp\n" if name.endswith("csv") else b""
    try:
        manifest = prepared(header + data, name)
    except DataError:
        return
    assert manifest.rows_read == accounted(manifest)


def check_fuzz(folder: Path, first_seed: int, num_seeds: int) -> None:
    command = [sys.executable, "-m", "dirty.fuzz", str(folder), str(first_seed), str(num_seeds)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    outcomes = dict(line.split(" ", 1) for line in answer.stdout.splitlines())
    assert answer.returncode == 0, f"{answer.stdout[-200:]}\n{answer.stderr[-3000:]}"
    assert list(outcomes) == [str(seed) for seed in range(first_seed, first_seed + num_seeds)]
    assert set(outcomes.values()) == {"prepared", "refused"}


def test_mutated_files_are_prepared_or_refused(tmp_path: Path) -> None:
    check_fuzz(tmp_path, first_seed=0, num_seeds=64)


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(1000, 5000, 500))
def test_many_mutated_files_are_prepared_or_refused(tmp_path: Path, first_seed: int) -> None:
    check_fuzz(tmp_path, first_seed=first_seed, num_seeds=500)
