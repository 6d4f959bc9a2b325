"""The chosen steps are traced and no other; a run is the same to the bit with a trace and without."""

import gzip
import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from runs import logged_steps, run_here, tiny_run
from train.profiler import StepProfiler


def test_chosen_steps_are_traced_and_nothing_else_changes(store: str, tmp_path: Path):
    plain, traced = tmp_path / "plain", tmp_path / "traced"
    assert run_here(tiny_run(store, plain, 4)) == 0
    assert run_here([*tiny_run(store, traced, 4), "profile.steps=[2,3]"]) == 0
    assert [row["loss"] for row in logged_steps(traced)] == [row["loss"] for row in logged_steps(plain)]
    assert not (plain / "profile").exists()
    events = json.loads(gzip.decompress((traced / "profile" / "rank-0.trace.json.gz").read_bytes()))["traceEvents"]
    assert any("mm" in str(event.get("name")) for event in events)
    assert "Self CPU" in (traced / "profile" / "rank-0.txt").read_text()


def test_a_run_that_ends_among_the_chosen_steps_keeps_their_trace(tmp_path: Path):
    with StepProfiler(tmp_path, [2, 9], rank=3) as profiled:
        for step in (1, 2, 3):
            with profiled(step):
                pass
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["rank-3.trace.json.gz", "rank-3.txt"]


def test_without_chosen_steps_nothing_is_written(tmp_path: Path):
    with StepProfiler(tmp_path, [], rank=0) as profiled, profiled(1):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", ["[3]", "[3,2]", "[0,2]", "[1,2,3]"])
def test_what_is_no_first_and_last_step_is_refused(steps: str):
    with pytest.raises(ConfigError, match=r"profile\.steps="):
        load_config([f"profile.steps={steps}"])
