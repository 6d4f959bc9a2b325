"""What `recommend` cannot do ends before ranks start: one line that names the key, exit code 2, nothing written."""

from pathlib import Path

import pytest

from prepared_store import synthetic_store
from runs import run_here, tiny_run
from train.recommend.preflight import main


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert run_here(tiny_run(synthetic_store(folder), folder / "run", 2)) == 0
    return folder / "run"


FILES = {
    "user.csv": "user\n1\n",
    "unknown.csv": "user_id\nabc\n99999\n",
    "empty.csv": "item_id\n",
    "few.csv": "item_id\n1001\n",
    "mine.parquet": "mine",
    "half.jsonl": '{"user_id": 1}\n\n{bad\n{"user_id": 2}\n',
    "wide.csv": "item_id\n1001\n1002,1\n",
    "lists.jsonl": '{"user_id": 1, "item_id": [1001]}\nno\n',
}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("recommend.k=0", "recommend.k=0 must be at least 1"),
        ("recommend.k=81", "more than the 80 candidates"),
        ("recommend.users=user.csv", "has no column 'user_id'; its columns are user; set recommend.user_column"),
        ("recommend.users=unknown.csv", "2 of 2 user ids are not in data.store="),
        ("recommend.users=none.csv", "does not exist"),
        ("recommend.allowed_items=empty.csv", "recommend.allowed_items=empty.csv holds no row"),
        ("recommend.allowed_items=few.csv", "more than the 1 candidates that recommend.allowed_items leave"),
        ("recommend.where=[count=-5]", "recommend.where: no item is left"),
        ("recommend.diverse_by=kind", "have no column 'kind'"),
        ("recommend.output=mine.parquet", "recommend.overwrite=true"),
        ("recommend.users=half.jsonl", "1 of its rows cannot be read (bad_json), first row"),
        ("recommend.forbidden_items=wide.csv", "1 of its rows cannot be read (too_many_fields), first row 2"),
        ("recommend.histories=lists.jsonl", "1 of its rows cannot be read (no JSON object"),
        ("recommend.users=mine.parquet", "mine.parquet cannot be read: "),
        ("recommend.output=mine.parquet/rows.csv", "cannot be written: "),
        ("recommend.output=rows.txt", "name a file that ends with"),
        ("run_dir=nowhere", "holds no run"),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(
    run_dir: Path,
    tmp_path: Path,
    override: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    words = [override] if override.startswith("run_dir") else [f"run_dir={run_dir}", override]
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == FILES
