"""Item content reaches the model on any number of ranks, in training and in ranking; no other content is taken."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed as dist

from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.cold_items import WARM
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import split_rule
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from ranks import run_ranks
from runs import assert_same_ranks, losses_and_ranks, run_here
from train.build import build_state
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluation.ranking import slice_vectors
from train.evaluation.summary import quality_report
from train.preflight import check
from train.step import train_step

ALL = "model.item_features=[kind,tags,price,title,vector]"
MODEL = ["model.embedding_dim=16", "model.feed_forward_dim=16", "data.max_history=12", "data.global_batch_size=32"]
EXACT = ["optimizer.lr=0.01", "optimizer.warmup_steps=0", "model.dropout=0", "model.attention_dropout=0"]
KEYS = [
    "data.item_features.kind.type=category",
    "data.item_features.tags.type=categories",
    "data.item_features.price.type=number",
    "data.item_features.price.normalise=standard",
    "data.item_features.title.type=text",
    "data.item_features.title.num_buckets=50",
    "data.item_features.vector.type=vector",
]
NUM_ITEMS = 61


def write_catalogue(path: Path, seed: int = 0) -> None:
    """Of most items of the log, with values that are missing."""
    draw = np.random.default_rng(seed)
    rows = [
        {
            "item_id": item,
            "kind": "abc"[item % 3],
            "tags": [f"t{k}" for k in draw.integers(0, 9, item % 4)],
            "price": None if item % 7 == 0 else float(draw.lognormal()),
            "title": " ".join(f"word{k}" for k in draw.integers(0, 30, item % 6)),
            "vector": None if item % 5 == 0 else draw.normal(size=3).tolist(),
        }
        for item in range(NUM_ITEMS - 6)
    ]
    pl.DataFrame(rows).write_parquet(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose next item is of the same kind, and a store of it with content."""
    folder = tmp_path_factory.mktemp("content")
    draw = np.random.default_rng(0)
    num = 4000
    users = np.sort(draw.integers(0, 250, num))
    items = (3 * draw.integers(0, 20, num) + users % 3).astype(np.int64)
    items[:NUM_ITEMS] = range(NUM_ITEMS)
    log = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(num)})
    log.write_parquet(folder / "log.parquet")
    write_catalogue(folder / "items.parquet")
    words = [f"data.log={folder}/log.parquet", f"data.items={folder}/items.parquet", *KEYS]
    prepare(load_config([*words, f"data.store={folder}/store"]).data)
    return folder


@pytest.mark.parametrize(
    "more",
    [
        ["sharding.strategy=row_wise"],
        ["loss=bce", "sharding.strategy=data_parallel"],
        pytest.param(
            ["model=bert4rec", "optimizer.clip_norm=0.1", "hardware.micro_batches=2"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["model=hstu", "loss=sampled_softmax", "sharding.strategy=column_wise", "optimizer.table=adagrad"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_the_number_of_ranks_does_not_change_losses_and_ranks_with_content(folder: Path, more: list[str]) -> None:
    is_sasrec = not more[0].startswith("model=")
    overrides = [f"data.store={folder}/store", *MODEL, *(EXACT if is_sasrec else EXACT[:3]), ALL, *more]
    if not is_sasrec and "hstu" in more[0]:
        overrides.remove("model.feed_forward_dim=16")
    if not is_sasrec and "bert4rec" in more[0]:
        overrides.append("model.attention_dropout=0")
    one, two = (run_ranks(size, losses_and_ranks, overrides) for size in (1, 2))
    np.testing.assert_allclose(two[0][0], one[0][0], rtol=1e-5)
    assert two[0] == two[1]
    assert_same_ranks(two[0][1], one[0][1])


def vectors(overrides: list[str]) -> dict[str, torch.Tensor]:
    """All items' vectors as ranking sees them, by rank, their id rows and their content."""
    config = load_config(overrides)
    manifest = load_manifest(config.data.store)
    state = build_state(config, manifest, 1, ProcessGroupCollectives(), torch.device("cpu"), held_out=None)
    every, device = range(manifest.num_items), torch.device("cpu")
    content = state.model.module.item_content
    with torch.no_grad():
        found = {"whole": slice_vectors(state.model, every, device), "content": content(torch.arange(len(every)))}
        found["one"] = torch.cat([content(torch.tensor([item])) for item in every])
        state.model.module.item_content = None
        found["id"] = slice_vectors(state.model, every, device)
    return found if dist.get_rank() == 0 else {}


def test_a_candidates_vector_is_its_row_plus_its_content_to_the_last_bit_however_many_are_asked(folder: Path) -> None:
    found = run_ranks(2, vectors, [f"data.store={folder}/store", *MODEL, ALL])[0]
    torch.testing.assert_close(found["whole"], found["id"] + found["content"], rtol=0, atol=0)
    torch.testing.assert_close(found["one"], found["content"], rtol=0, atol=0)
    assert (found["content"].norm(dim=1) > 0).all(), "a missing category has a vector too"


COLD = ["data.split=cold_items", "data.cold_items_fraction=0.3"]


def cold_run(overrides: list[str]) -> tuple[list[float], bool, dict[str, Any]]:
    """Losses, whether the rows of cold items are zeros after training, and what is told of both kinds of items."""
    config = load_config(overrides)
    manifest = load_manifest(config.data.store)
    state = build_state(config, manifest, 20, ProcessGroupCollectives(), torch.device("cpu"))
    stream = SequenceStream(config.data, seed=0, rank=dist.get_rank(), world_size=dist.get_world_size(), features=())
    with closing(stream.batches()) as batches:
        losses = [float(train_step(state, next(batches)).loss) for _ in range(20)]
    told = quality_report(state, config, manifest)
    state.model.module.item_content = None
    rows = slice_vectors(state.model, range(manifest.num_items), torch.device("cpu"))
    cold = split_rule(config.data, manifest).cold
    assert cold is not None
    is_zero = (rows == 0).all(dim=1).numpy()
    return losses, bool((is_zero == (cold != WARM)).all()), told


@pytest.mark.parametrize("more", [[], ["loss=bce"]], ids=" ".join)
def test_cold_items_are_scored_by_content_alone_on_any_number_of_ranks(folder: Path, more: list[str]) -> None:
    more = [*more, "evaluation.num_bootstrap_samples=10"]
    overrides = [f"data.store={folder}/store", *MODEL, *EXACT, *COLD, ALL, *more]
    one, two = (run_ranks(size, cold_run, overrides) for size in (1, 2))
    np.testing.assert_allclose(two[0][0], one[0][0], rtol=1e-5)
    assert one[0][1], "rows of cold items, and of no others, are zeros"
    assert two[0][1]
    by_items = one[0][2]["by_items"]
    assert by_items["cold"]["num_targets"] + by_items["warm"]["num_targets"] == one[0][2]["num_test_users"]
    for kind, found in two[0][2]["by_items"].items():
        assert found["num_targets"] == by_items[kind]["num_targets"]
        assert found["ndcg@50"] == pytest.approx(by_items[kind]["ndcg@50"], abs=0.02)


def resumed(overrides: list[str]) -> int:
    """The exit code of a whole run."""
    return run_here(overrides)


def test_a_run_is_refused_on_other_content_by_key(folder: Path, tmp_path: Path) -> None:
    words = [f"data.store={folder}/store", *MODEL, f"run_dir={tmp_path}/run", "num_steps=2", ALL]
    assert run_ranks(1, resumed, words) == [0]
    log, run = f"data.log={folder}/log.parquet", [f"run_dir={tmp_path}/run", *MODEL, "num_steps=4", ALL]
    write_catalogue(tmp_path / "other.parquet", seed=1)
    prepare(load_config([log, f"data.items={tmp_path}/other.parquet", *KEYS, f"data.store={tmp_path}/other"]).data)
    other = [f"data.store={tmp_path}/other", *run]
    with pytest.raises(ConfigError, match=r"other item content.*data\.item_content="):
        check(load_config(other), other)
    prepare(load_config([log, f"data.store={tmp_path}/none"]).data)
    none = [f"data.store={tmp_path}/none", *run]
    with pytest.raises(ConfigError, match=r"model\.item_features=.*has no item feature 'kind'"):
        check(load_config(none), none)
    without = [f"data.store={folder}/store", *run[:-1]]
    with pytest.raises(ConfigError, match=r"another run: there model\.item_features="):
        check(load_config(without), without)
