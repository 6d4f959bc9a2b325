"""What a second rank is worth: a job of several ranks beside as many independent runs of one rank at the same time.

``shardrec bench scaling data.store=STORE ...``; ``hardware.num_ranks`` ranks, two unless it is set. Independent runs
share the machine and wait for nobody: what they reach together is the most that the machine has to give. Ranks train
by the run's own loop, with its stream, log and stop votes; their start, validations and checkpoints are left out.
"""

import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.collective_profile import Collective
from benchmarks.harness import Spread, interleaved, paired_ratio, record_name, spread_of, write_result
from benchmarks.rank_group import Answer, RankGroup, Request, rank_group
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import RunConfig

NUM_ROUNDS = 7
STEPS_PER_ROUND = 5
LOSSES = {"full_softmax": ["loss=full_softmax"], "sampled_128": ["loss=sampled_softmax", "loss.num_negatives=128"]}
WIDTHS = (64, 256)
WIDTH_KEY = "model.embedding_dim"


def main(overrides: list[str]) -> None:
    """Time both losses at two widths, or at the one that ``overrides`` name; write ``results/scaling.json``
    after each, since a machine may not be free for all."""
    if any(override.startswith("loss") for override in overrides):
        raise ConfigError(
            f"the scaling benchmark sets loss itself ({', '.join(LOSSES)}); leave loss out of {overrides}"
        )
    is_width_set = any(override.startswith(f"{WIDTH_KEY}=") for override in overrides)
    widths = [load_config(overrides).model.embedding_dim] if is_width_set else WIDTHS
    figures: dict[str, Spread] = {}
    notes: dict[str, object] = {"steps_per_round": STEPS_PER_ROUND}
    config = load_config(["hardware.num_ranks=2", *overrides])
    if config.hardware.num_ranks < 2:
        raise ConfigError(f"hardware.num_ranks={config.hardware.num_ranks}: the scaling benchmark needs two or more")
    notes["num_ranks"] = config.hardware.num_ranks
    for width in widths:
        for loss, keys in LOSSES.items():
            found, told = _measured(config, [*overrides, f"{WIDTH_KEY}={width}", *keys])
            name = f"{loss}.width_{width}"
            figures |= {f"{name}.{key}": spread for key, spread in found.items()}
            notes[name] = told
            write_result(record_name("scaling", config.hardware), overrides, figures, notes)


def _measured(config: RunConfig, overrides: list[str]) -> tuple[dict[str, Spread], dict[str, object]]:
    num_ranks = config.hardware.num_ranks
    larger = f"data.global_batch_size={config.data.global_batch_size * num_ranks}"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def job(name: str, ranks: int, threads: int, *more: str) -> RankGroup:
            return stack.enter_context(rank_group(ranks, threads, [*overrides, *more], Path(folder, name)))

        independent = [job(f"independent-{number}", 1, 1) for number in range(num_ranks)]
        jobs = {
            "one_rank": independent[:1],
            "independent": independent,
            "one_rank_all_threads": [job("threads", 1, num_ranks)],
            "ranks": [job("ranks", num_ranks, 1)],
            "ranks_larger_batch": [job("larger", num_ranks, 1, larger)],
        }
        rounds = {name: list[list[Answer]]() for name in jobs}
        rates = interleaved({name: _timed(groups, rounds[name]) for name, groups in jobs.items()}, NUM_ROUNDS)
        collectives = _collectives(jobs["ranks"][0])
    figures = {f"{name}.tokens_per_s": spread_of(runs) for name, runs in rates.items()}
    figures |= {
        "ranks_against_independent": paired_ratio(rates["ranks"], rates["independent"]),
        "ranks_larger_batch_against_independent": paired_ratio(rates["ranks_larger_batch"], rates["independent"]),
        "ranks_against_one_rank": paired_ratio(rates["ranks"], rates["one_rank"]),
        "ranks_against_all_threads": paired_ratio(rates["ranks"], rates["one_rank_all_threads"]),
        "independent_against_one_rank": paired_ratio(rates["independent"], rates["one_rank"]),
    }
    figures |= {f"{name}.cpu_s_per_million_tokens": spread_of(_cpu_s(found)) for name, found in rounds.items()}
    told: dict[str, object] = {
        "peak_bytes_of_all_ranks": {
            name: sum(each.peak_bytes for each in found[-1]) for name, found in rounds.items()
        },
        "fullest_rank_to_mean": spread_of([_imbalance(found) for found in rounds["ranks"]]).median,
        "collectives_per_step": sum(each.calls for each in collectives.values()) / STEPS_PER_ROUND,
        "collectives_of_a_step": {name: _per_step(each) for name, each in collectives.items()},
    }
    return figures, told


def _timed(groups: list[RankGroup], rounds: list[list[Answer]]) -> Callable[[], float]:
    """Tokens a second of all ``groups`` at once, each over its own time; keeps the answers of all ranks."""

    def rate() -> float:
        for group in groups:
            group.ask(Request(STEPS_PER_ROUND))
        answers = [group.answers() for group in groups]
        rounds.append([answer for group in answers for answer in group])
        return math.fsum(_tokens_per_s(group) for group in answers)

    return rate


def _tokens_per_s(answers: list[Answer]) -> float:
    return sum(answer.num_tokens for answer in answers) / max(answer.seconds for answer in answers)


def _cpu_s(rounds: list[list[Answer]]) -> list[float]:
    """What a million tokens take of all cores together, but for the round that is not counted."""
    return [
        sum(answer.cpu_s for answer in found) / sum(answer.num_tokens for answer in found) * 1e6
        for found in rounds[1:]
    ]


def _imbalance(answers: list[Answer]) -> float:
    return answers[0].fullest_tokens / sum(answer.num_tokens for answer in answers)


def _collectives(group: RankGroup) -> dict[str, Collective]:
    """Of rank 0, over :data:`STEPS_PER_ROUND` steps."""
    group.ask(Request(STEPS_PER_ROUND, is_profiled=True))
    return group.answers()[0].collectives


def _per_step(collective: Collective) -> Mapping[str, float]:
    return {key: value / STEPS_PER_ROUND for key, value in asdict(collective).items()}
