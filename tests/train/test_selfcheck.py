"""The doctor's two-rank step: it notices what it is for."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from train.doctor import selfcheck
from train.doctor.selfcheck import RankReport, Selfcheck
from train.supervision.elastic_agent import Node

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("two_ranks", "agrees"),
    [
        ([[4.0, 3.0], [4.0, 3.0]], True),
        ([[4.0 * (1 + 5e-6), 3.0], [4.0, 3.0]], True),
        ([[4.0, 3.0], [4.0, 3.0 * (1 + 2e-5)]], False),
        ([[4.0, math.nan], [4.0, 3.0]], False),
    ],
)
def test_ranks_agree_where_every_loss_is_finite_and_that_of_one_rank(two_ranks: list[list[float]], agrees: bool):
    assert Selfcheck([4.0, 3.0], two_ranks, "item row_wise", 0.5).agrees is agrees


def test_infinite_losses_do_not_agree_even_where_they_are_equal():
    assert not Selfcheck([math.inf], [[math.inf], [math.inf]], "item row_wise", 0.5).agrees


def replace_ranks(monkeypatch: pytest.MonkeyPatch, code: int, losses: list[float]) -> None:
    """Ranks that write such losses and return ``code``."""

    def start_ranks(node: Node, module: str, config: object, overrides: list[str]) -> int:
        folder = next(word.partition("=")[2] for word in overrides if word.startswith("run_dir="))
        for rank in range(node.num_ranks):
            report = {"losses": losses, "placement": "item row_wise", "peak_gib": 1.0}
            (Path(folder) / f"rank-{rank}.json").write_text(json.dumps(report))
        return code

    monkeypatch.setattr(selfcheck, "start_ranks", start_ranks)
    monkeypatch.setattr(selfcheck, "train_here", lambda config: RankReport([4.0], "item row_wise", 1.0))


@pytest.mark.parametrize(("code", "losses", "ended"), [(0, [4.0], 0), (0, [4.5], 1), (7, [4.0], 7)])
def test_it_returns_what_failed(
    code: int, losses: list[float], ended: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    replace_ranks(monkeypatch, code, losses)
    assert selfcheck.selfcheck("cpu") == ended
    told = capsys.readouterr().out
    assert (told == "") == (code != 0)
    if told:
        assert json.loads(told)["agrees"] is (ended == 0)


@pytest.mark.slow
def test_a_real_step_on_two_ranks_agrees_with_one():
    command = [sys.executable, "-m", "train.doctor.selfcheck", "cpu"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["agrees"]
    assert found["placement"] == "item row_wise"
    first, second = found["one_rank"]
    assert first != second, "the second loss must see the first step's change"
