"""`recommend` on two ranks, killed at random moments and started again, writes the file of one left alone."""

import random
import subprocess
import time
from pathlib import Path

import pytest
from kills import TARGETS, kill, seconds_until_gone, start_command, targets_in

from configs.schema import DataConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.synthetic import write_log
from processes import PATIENCE_S, family_of, wait_for
from runs import run_here, tiny_run
from train.evaluation.preflight import evaluated_run
from train.recommend.run import recommend

NUM_KILLS = 5


def run_of(folder: Path) -> Path:
    """A run whose lists of 290 items for 2,400 users are six parts."""
    log, store = str(folder / "log.parquet"), str(folder / "store")
    write_log(SyntheticConfig(num_users=2400, num_items=300, mean_length=6), log)
    prepare(DataConfig(log=log, store=store))
    assert run_here(tiny_run(store, folder / "run", 2)) == 0
    return folder / "run"


def wait_for_a_moment(
    command: "subprocess.Popen[str]", unfinished: Path, num_parts: int, draw: random.Random
) -> None:
    """Until so many parts are there, and a little longer; with none, some time after the start of the processes."""
    if num_parts:
        wait_for(lambda: command.poll() is not None or num_parts_in(unfinished) >= num_parts)
    time.sleep(draw.random() * (0.3 if num_parts else 6))


def num_parts_in(unfinished: Path) -> int:
    return len(list(unfinished.glob("part-*")))


@pytest.mark.slow
def test_a_command_that_is_killed_at_random_moments_writes_the_same_file(tmp_path: Path) -> None:
    run_dir, draw = run_of(tmp_path), random.Random(7)
    options = [f"run_dir={run_dir}", "recommend.k=290", "recommend.leave_out_seen=false"]
    recommend(evaluated_run([*options, f"recommend.output={tmp_path / 'whole.csv'}"]))
    whole, output = (tmp_path / "whole.csv").read_bytes(), tmp_path / "cut.csv"
    words = ["recommend", *options, f"recommend.output={output}", "hardware.num_ranks=2", "hardware.num_threads=1"]
    unfinished, parts = Path(f"{output}.unfinished"), [0]
    for number in range(NUM_KILLS):
        command = start_command(words)
        wait_for_a_moment(command, unfinished, number, draw)
        family = family_of(command.pid)
        kill(targets_in(family, draw.choice(TARGETS), command.pid) or family)
        seconds_until_gone(family)
        command.communicate()
        if output.exists():  # it was faster than the kill
            assert output.read_bytes() == whole
            output.unlink()
            parts = [0]
        parts.append(num_parts_in(unfinished))
        assert parts == sorted(parts), "what is written stays"
    last = start_command(words)
    _, errors = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, errors
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.glob("*.csv*")) == ["cut.csv", "whole.csv"]
