"""Training on hidden events: those that are held out are neither hidden nor seen."""

from pathlib import Path

import numpy as np

from ranks import run_ranks
from runs import losses_and_ranks
from stores import write_store

CHOICES = ["model=bert4rec", "model.embedding_dim=8", "data.max_history=6", "data.global_batch_size=32"]


def losses_of(overrides: list[list[str]]) -> list[list[float]]:
    return [losses_and_ranks([*CHOICES, *each], num_steps=6)[0] for each in overrides]


def store_with(folder: Path, training: list[list[int]], held_out: list[list[int]]) -> str:
    """Of histories that end with two held-out events each."""
    items = [[*ours, *last] for ours, last in zip(training, held_out, strict=True)]
    return write_store(folder, items, [[*range(len(history))] for history in items])


def test_held_out_events_are_neither_hidden_nor_seen(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    training = [draw.integers(0, 25, draw.integers(2, 20)).tolist() for _ in range(120)]
    held_out = [draw.integers(25, 50, (120, 2)).tolist() for _ in range(2)]
    changed = [[*ours[:-1], (ours[-1] + 1) % 25] for ours in training]
    cases = [(training, held_out[0]), (training, held_out[1]), (changed, held_out[0])]
    stores = [store_with(tmp_path / str(number), *case) for number, case in enumerate(cases)]
    ways = [f"data.long_histories={way}" for way in ("latest", "windows")]
    losses = run_ranks(1, losses_of, [[f"data.store={store}", way] for way in ways for store in stores])[0]
    for first, other_targets, other_events in (losses[:3], losses[3:]):
        assert first == other_targets
        assert first != other_events
