"""Two protocols are told apart by name; runs of one are the same whatever was learnt and how."""

from pathlib import Path

import pytest

from benchmarks.runs.protocol import differences, groups_of, require_one_protocol
from benchmarks.runs.recorded_run import RecordedRun, read_run
from configs.errors import ConfigError
from recorded import write_run

OTHERS = {
    "data.fingerprint": ([], {"data": {"fingerprint": "e" * 64}}),
    "data.split": (["data.split=global_time"], {}),
    "evaluation.leave_out_seen": (["evaluation.leave_out_seen=false"], {}),
    "cut-offs": ([], {"quality": {"test": {"ndcg@7": 0.1}}}),
    "test users": ([], {"quality": {"num_test_users": 899}}),
}


def run_in(folder: Path, words: list[str], summary: dict[str, object] | None = None) -> RecordedRun:
    return read_run(write_run(folder, words, summary=summary))


def test_models_losses_and_seeds_are_compared(tmp_path: Path) -> None:
    runs = [run_in(tmp_path / "a", ["seed=1"]), run_in(tmp_path / "b", ["model=hstu", "loss=bce", "num_epochs=3"])]
    require_one_protocol(runs)
    assert list(differences(*runs)) == []


@pytest.mark.parametrize("name", OTHERS)
def test_another_protocol_is_named(name: str, tmp_path: Path) -> None:
    runs = [run_in(tmp_path / "a", []), run_in(tmp_path / "b", *OTHERS[name])]
    with pytest.raises(ConfigError, match=f"b was not ranked as .*a was.*{name} is") as raised:
        require_one_protocol(runs)
    assert "\n" not in str(raised.value)


def test_the_times_of_a_split_by_time_are_part_of_it(tmp_path: Path) -> None:
    words = ["data.split=global_time", "data.global_time_valid=2020-01-01"]
    runs = [run_in(tmp_path / name, [*words, f"data.global_time_test=2020-01-0{name}"]) for name in ("2", "3")]
    assert [each.partition(" ")[0] for each in differences(*runs)] == ["data.global_time_test"]


def test_groups_are_the_runs_of_each_protocol_the_largest_first(tmp_path: Path) -> None:
    words = [[], ["evaluation.leave_out_seen=false"], ["seed=1", "evaluation.leave_out_seen=false"]]
    runs = [run_in(tmp_path / str(number), each) for number, each in enumerate(words)]
    assert [[run.name for run in group] for group in groups_of(runs)] == [["1", "2"], ["0"]]
