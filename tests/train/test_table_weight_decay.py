"""Weight decay of the tables: what it does to which rows, and where it is refused."""

import numpy as np
import pytest
import torch

from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.batch import SequenceBatch
from data_pipeline.store.manifest import load_manifest
from ranks import run_ranks
from train.distributed.collectives import ProcessGroupCollectives
from train.run import build_state
from train.sharding import local_shards, table_weights
from train.step import train_step

DECAY, RATE, WIDTH = 0.25, 0.125, 8
BATCHES = [[3, 5, 5], [5, 8]]
"""Of rank 0 and rank 1; on one rank both."""
RUN = ["data.max_history=8", "data.global_batch_size=2", f"model.embedding_dim={WIDTH}", "model.dropout=0"]
RATES = [f"optimizer.table_lr={RATE}", "optimizer.warmup_steps=0", "optimizer.schedule=constant"]
SAMPLED = ["loss=sampled_softmax", "loss.num_negatives=1"]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("table", "decays_all"), [("rowwise_adagrad", False), ("adam", True)])
def test_a_row_decays_once_by_rate_and_decay_whichever_ranks_look_it_up(
    store: str, world_size: int, table: str, decays_all: bool
):
    overrides = [f"data.store={store}", *RUN, *RATES, *SAMPLED, f"optimizer.table={table}", "sharding=row_wise"]
    first, plain = (np.concatenate(each) for each in zip(*run_ranks(world_size, one_step, overrides), strict=True))
    decayed = run_ranks(world_size, one_step, [*overrides, f"optimizer.table_weight_decay={DECAY}"])
    difference = np.concatenate([after for _, after in decayed]) - plain
    is_decayed = np.abs(difference).max(1) > 0
    assert is_decayed[[3, 5, 8]].all()
    assert is_decayed.all() if decays_all else is_decayed.sum() <= 4, "those of the histories, and one negative"
    np.testing.assert_allclose(difference[is_decayed], -RATE * DECAY * first[is_decayed], rtol=1e-3, atol=1e-7)


def test_a_bad_step_decays_no_row(store: str):
    overrides = [f"data.store={store}", *RUN, *RATES, *SAMPLED, f"optimizer.table_weight_decay={DECAY}"]
    for first, after in run_ranks(2, one_step, [*overrides, "sharding=row_wise"], True):
        np.testing.assert_array_equal(after, first)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        (["optimizer.table=sgd"], "fbgemm ignores the weight decay of optimizer.table=sgd; set optimizer.table="),
        (["optimizer.table=adagrad"], "set optimizer.table=rowwise_adagrad or adam"),
        (["sharding=data_parallel"], "set sharding.strategy=row_wise, or optimizer.table=adam"),
    ],
)
def test_a_weight_decay_that_would_do_nothing_or_another_thing_is_refused(choices: list[str], says: str):
    with pytest.raises(ConfigError, match=rf"optimizer\.table_weight_decay=0\.5: .*{says}"):
        load_config(["optimizer.table_weight_decay=0.5", *choices])
    load_config(choices)


def one_step(overrides: list[str], is_bad: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """This rank's rows of the item table before and after one step."""
    config, collectives = load_config(overrides), ProcessGroupCollectives()
    state = build_state(config, load_manifest(config.data.store), 9, collectives, torch.device("cpu"))
    histories = BATCHES if collectives.world_size == 1 else [BATCHES[collectives.rank]]
    item = torch.tensor([each for history in histories for each in history])
    lengths = torch.tensor([len(history) for history in histories])
    before = rows_of(state.model)
    if is_bad and collectives.rank == 1:
        for weight in state.model.module.encoder.parameters():
            torch.nn.init.constant_(weight, float("nan"))
    metrics = train_step(state, SequenceBatch(item, lengths, torch.arange(len(histories)), item))
    assert metrics.is_finite != is_bad
    return before, rows_of(state.model)


def rows_of(model: torch.nn.Module) -> np.ndarray:
    parts = [part.detach().clone() for part, _ in local_shards(table_weights(model)["item"])]  # type: ignore[arg-type]
    return torch.cat(parts).numpy()
