"""`bench scaling`: its ranks train by the run's own loop, and what it knows of their collectives."""

from pathlib import Path

import pytest

from benchmarks import bench_scaling
from benchmarks.bench_scaling import STEPS_PER_ROUND
from benchmarks.collective_profile import collectives_of
from benchmarks.rank_group import Answer, Request, rank_group
from configs.errors import ConfigError
from stores import write_store

MOST_COLLECTIVES = 12
"""Of a step of the full softmax over one table on several ranks."""


@pytest.mark.parametrize("word", ["loss=bce", "hardware.num_ranks=1"])
def test_what_it_sets_itself_and_one_rank_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        bench_scaling.main(["data.store=nowhere", word])


def test_collectives_are_told_by_kind_with_the_bytes_that_a_rank_brings() -> None:
    def event(name: str, shapes: list[list[int]], types: list[str]) -> dict[str, object]:
        return {"ph": "X", "name": name, "dur": 2e6, "args": {"Input Dims": shapes, "Input type": types}}

    events = [
        event("gloo:all_reduce", [[3, 2]], ["float"]),
        event("gloo:all_reduce", [[]], ["double"]),
        event("nccl:all_gather", [[5]], ["long int"]),
        event("aten::mm", [[4, 4], [4, 4]], ["float", "float"]),
    ]
    found = collectives_of(events)
    assert {name: (each.calls, each.bytes, each.seconds) for name, each in found.items()} == {
        "all_reduce": (2, 3 * 2 * 4 + 8, 4.0),
        "all_gather": (1, 5 * 8, 2.0),
    }


@pytest.mark.slow
def test_two_ranks_train_the_tokens_of_one_and_a_step_has_few_collectives(tmp_path: Path) -> None:
    items = [[(user + place) % 50 for place in range(3 + user % 5)] for user in range(64)]
    write_store(tmp_path / "store", items, [list(range(len(each))) for each in items])
    keys = [f"data.store={tmp_path / 'store'}", "data.global_batch_size=16", "loss=full_softmax"]
    with (
        rank_group(1, 1, keys, tmp_path / "one") as one,
        rank_group(2, 1, keys, tmp_path / "two") as two,
    ):
        for group in (one, two):
            group.ask(Request(STEPS_PER_ROUND))
        alone, together = one.answers(), two.answers()
        assert sum(map(tokens, together)) == tokens(alone[0]) > 0
        two.ask(Request(STEPS_PER_ROUND, is_profiled=True))
        for answer in two.answers():
            calls = sum(each.calls for each in answer.collectives.values())
            assert 0 < calls <= MOST_COLLECTIVES * STEPS_PER_ROUND


def tokens(answer: Answer) -> int:
    return answer.num_tokens


@pytest.mark.slow
def test_a_rank_that_ends_is_told(tmp_path: Path) -> None:
    with rank_group(1, 1, ["data.store=nowhere"], tmp_path / "job") as group:
        group.ask(Request(1))
        with pytest.raises(ConfigError, match="rank 0"):
            group.answers()
