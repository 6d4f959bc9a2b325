"""A rank's own log holds all that it prints; pinned ranks have parts of the processors that do not overlap."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.supervision.rank_environment import numbers_in, share_of

REPOSITORY = Path(__file__).parents[2]


def rank(code: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A process that ``run_and_exit`` ends, as a rank is."""
    program = (
        f"import os, sys\nfrom train.supervision.process_exit import run_and_exit\n"
        f"def main():\n    {code}\nrun_and_exit(main)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RANK": "3"} | variables
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )


def test_what_a_rank_prints_is_in_its_log_too_and_a_restart_adds_to_it(tmp_path: Path) -> None:
    pattern = str(tmp_path / "logs" / "rank-{rank}.log")
    for word in ("one", "two"):
        done = rank(f"print('{word}'); print('warned', file=sys.stderr)", SHARDREC_RANK_LOG=pattern)
        assert (done.stdout, done.stderr) == (f"{word}\n", "warned\n")
    assert (tmp_path / "logs" / "rank-3.log").read_text() == "one\nwarned\ntwo\nwarned\n"


def test_a_traceback_that_the_agent_tells_is_in_the_ranks_log(tmp_path: Path) -> None:
    done = rank("raise RuntimeError('broken')", SHARDREC_RANK_LOG=f"{tmp_path}/{{rank}}", SHARDREC_AGENT="1")
    assert done.returncode == 1
    assert "broken" not in done.stdout + done.stderr
    assert "RuntimeError: broken" in (tmp_path / "3").read_text()


@pytest.mark.parametrize("agent", [{}, {"SHARDREC_AGENT": "1"}], ids=["alone", "under an agent"])
def test_a_traceback_is_told_while_a_process_group_is_open(tmp_path: Path, agent: dict[str, str]) -> None:
    """torch hooks into the errors of a process then."""
    code = (
        "import torch.distributed as dist; dist.init_process_group('gloo', store=dist.HashStore(), rank=0, "
        "world_size=1); raise RuntimeError('broken')"
    )
    done = rank(code, SHARDREC_RANK_LOG=f"{tmp_path}/{{rank}}", **agent)
    assert done.returncode == 1
    assert ("RuntimeError: broken" in done.stderr) == (not agent)
    assert "RuntimeError: broken" in (tmp_path / "3").read_text()


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = rank("print('trained')", SHARDREC_RANK_LOG=f"{tmp_path}/file/{{rank}}")
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert "rank 3 has no log" in done.stderr


@given(num_processors=st.integers(1, 64), num_ranks=st.integers(1, 64))
def test_shares_are_all_processors_once_where_there_are_enough(num_processors: int, num_ranks: int) -> None:
    processors = list(range(0, 2 * num_processors, 2))
    shares = [share_of(processors, rank, num_ranks) for rank in range(num_ranks)]
    assert all(shares)
    if num_processors >= num_ranks:
        assert [each for share in shares for each in share] == processors
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranges_are_read_as_the_kernel_writes_them() -> None:
    assert numbers_in("0-2,5,7-8\n") == {0, 1, 2, 5, 7, 8}
    assert numbers_in("\n") == set()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor cannot be shared out")
def test_two_pinned_ranks_share_no_processor() -> None:
    told = [
        rank(
            "import json; print(json.dumps(sorted(os.sched_getaffinity(0))))",
            SHARDREC_BIND_RANKS="cores",
            LOCAL_RANK=str(number),
            LOCAL_WORLD_SIZE="2",
        ).stdout
        for number in (0, 1)
    ]
    first, second = (set(json.loads(each)) for each in told)
    assert first | second == os.sched_getaffinity(0)
    assert not first & second
