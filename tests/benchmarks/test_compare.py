"""``shardrec compare``: the figures are those of the ranks, and what cannot be compared is refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.compare import main
from launch.cli import main as shardrec
from recorded import write_run
from train.evaluation.metrics import metric_of
from train.evaluation.user_ranks import PROTOCOL, RANKS, RANKS_OF_EVALUATION

USERS = [f"u{number:03d}" for number in range(900)]
PROTOCOLS: dict[str, Any] = {
    "format": 1,
    "fingerprint": "f" * 64,
    "split": {"name": "leave_one_out"},
    "leave_out_seen": True,
    "cutoffs": [1, 5, 10, 20, 50],
    "num_items": 1000,
    "step": 3,
}


def run_of(
    folder: Path, skill: float, *words: str, name: str = RANKS, seed: int = 0, usd: float = 0.01, **protocol: Any
) -> str:
    """A run whose targets stand the higher, the greater ``skill``; the ranks of equal skills and seeds are equal."""
    place = str(folder) if (folder / "config.yaml").exists() else write_run(folder, list(words), usd=usd)
    random = np.random.default_rng(seed)
    rank = 1 + np.floor(1000 * random.random(len(USERS)) ** skill)
    order = np.random.default_rng(len(str(folder))).permutation(len(USERS))  # of a store of its own
    table = pa.table(
        {
            "split": ["test"] * len(USERS),
            "user": [USERS[place] for place in order],
            "item": order,
            "rank": rank[order],
            "score": pa.array(rank[order], pa.float32()),
            "is_seen": [False] * len(USERS),
            "history_length": pa.array([9] * len(USERS), pa.int32()),
        }
    )
    metadata = {PROTOCOL: json.dumps(PROTOCOLS | protocol)}
    pq.write_table(table.replace_schema_metadata(metadata), folder / name)
    return place


def compared(folder: Path, *words: str) -> dict[str, Any]:
    """What the command writes as JSON."""
    assert main([*words, f"output={folder / 'found.json'}"]) == 0
    return json.loads((folder / "found.json").read_text())


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    capsys.readouterr()
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_figures_are_those_of_the_ranks_user_by_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of(tmp_path / "a", 2.0), run_of(tmp_path / "bb", 2.4, "model.embedding_dim=32", usd=0.03)]
    found = compared(tmp_path, *runs, "metrics=ndcg@10,map@7,mrr")
    told = capsys.readouterr().out
    assert [each["metric"] for each in found["differences"]] == ["ndcg@10", "mrr@7", "mrr"]
    for each in found["differences"]:
        ranks = [pq.read_table(Path(run) / RANKS).column("rank").to_numpy() for run in runs]
        values = [metric_of(some, each["metric"]) for some in ranks]
        assert [each["first_value"], each["second_value"]] == pytest.approx(values, abs=1e-12)
        assert each["difference"] == pytest.approx(values[1] - values[0], abs=1e-12)
        assert 0 < each["low"] < each["difference"] < each["high"], "the same users are ranked higher, each of them"
        assert each["p_value"] <= each["p_value_holm"] < 0.05
    assert found["cost_ratios"] == [
        {"first": 0, "second": 1, **dict.fromkeys(("usd", "device_hours", "kwh"), pytest.approx(3.0))}
    ]
    assert "B is better" in told
    assert "3.00 times the USD" in told
    assert "embedding_dim=32" in told


def test_runs_that_are_the_same_are_not_distinguishable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(tmp_path, run_of(tmp_path / "a", 2.0), run_of(tmp_path / "bb", 2.0))
    assert {each["p_value"] for each in found["differences"]} == {1.0}
    assert "not distinguishable" in capsys.readouterr().out


def test_every_pair_is_compared_where_that_is_asked(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, 2.0 + number / 9) for number, name in enumerate(("a", "bb", "ccc"))]
    for against, pairs in (("first", {(0, 1), (0, 2)}), ("all", {(0, 1), (0, 2), (1, 2)})):
        found = compared(tmp_path, *runs, f"against={against}")
        assert {(each["first"], each["second"]) for each in found["differences"]} == pairs


def test_a_cost_that_was_not_recorded_is_said_and_not_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_of(tmp_path / "a", 2.0)
    write_run(tmp_path / "bb", summary={"cost": {"kwh": None}})
    found = compared(tmp_path, first, run_of(tmp_path / "bb", 2.1))
    assert found["cost_ratios"][0]["kwh"] is None
    assert "kWh not recorded by both" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "protocol", "named"),
    [
        (["data.split=global_time"], {}, "data.split is leave_one_out there and global_time here"),
        (["evaluation.leave_out_seen=false"], {}, "evaluation.leave_out_seen is True there and False here"),
        ([], {"fingerprint": "e" * 64}, "data.fingerprint is ffffffffffff... there and eeeeeeeeeeee... here"),
        ([], {"cutoffs": [1, 7]}, "cut-offs is 1,5,10,20,50 there and 1,7 here"),
        ([], {"num_items": 7}, "items of the catalogue is 1000 there and 7 here"),
    ],
)
def test_runs_of_another_protocol_are_refused_with_the_difference(
    words: list[str], protocol: dict[str, Any], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_of(tmp_path / "a", 2.0), run_of(tmp_path / "bb", 2.0, *words, **protocol)]
    told = refused(runs, capsys)
    assert named in told
    assert "bb was not ranked as" in told


def test_other_targets_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_of(tmp_path / "a", 2.0), run_of(tmp_path / "bb", 2.0)]
    path = tmp_path / "bb" / RANKS
    pq.write_table(pq.read_table(path).slice(1), path)
    assert "ranked other targets (899 users)" in refused(runs, capsys)


def test_ranks_of_evaluations_are_compared_by_their_own_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"leave_out_seen": False}
    runs = [run_of(tmp_path / "a", 2.0), run_of(tmp_path / "bb", 2.0, "evaluation.leave_out_seen=false", **other)]
    told = refused([*runs, "ranks=evaluation"], capsys)
    assert "`shardrec evaluate run_dir=" in told
    run_of(tmp_path / "a", 2.0, name=RANKS_OF_EVALUATION, **other)
    run_of(tmp_path / "bb", 2.5, name=RANKS_OF_EVALUATION, **other)
    assert compared(tmp_path, *runs, "ranks=evaluation")["protocol"]["leave_out_seen"] is False


def test_what_is_no_run_or_cannot_be_read_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, without = run_of(tmp_path / "a", 2.0), write_run(tmp_path / "old")
    damaged = run_of(tmp_path / "damaged", 2.0)
    (tmp_path / "damaged" / RANKS).write_bytes(b"PAR1, not")
    unfinished = run_of(tmp_path / "unfinished", 2.0)
    (tmp_path / "unfinished" / "summary.json").unlink()
    cases = {
        f"{tmp_path}/none": "does not exist",
        without: f"`shardrec evaluate run_dir={without}` ranks its best model",
        damaged: f"{damaged}/{RANKS} is damaged",
        unfinished: "has no summary.json yet",
    }
    for place, reason in cases.items():
        told = refused([good, place], capsys)
        assert place in told
        assert reason in told
    nobody = write_run(tmp_path / "nobody", ["data.split=none"])
    assert "nobody was ranked" in refused([good, nobody], capsys)
    assert "two runs or more" in refused([good], capsys)
    for word in ("metrics=auc@10", "metrics=ndcg", "samples=0", "samples=x", "split=train", "metric=ndcg@10"):
        assert word.partition("=")[0] in refused([good, good, word], capsys)
    assert "split=valid" in refused([good, good, "split=valid"], capsys)


def test_it_is_a_verb_and_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run_of(tmp_path / "a", 2.0), run_of(tmp_path / "bb", 2.4)]
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not there')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert shardrec(["compare", *runs]) == 0
