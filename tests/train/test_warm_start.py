"""A run that begins with the model of another: every row by its raw id, whatever its place in either store."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed as dist
from logs import random_log

from configs.atomic_files import read_json
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.id_map import dense_ids, raw_items, raw_users
from data_pipeline.store.manifest import load_manifest
from models.tables import initial_rows
from ranks import run_ranks
from runs import TINY_RUN, logged_steps, run_here, tiny_run
from train.preflight import main as preflight
from train.run_dir.identity import IDENTITY

WITH_USERS = "model.user_input=add"
STATE = "optimizer.table.item.sum"


def tensors_of(run: Path, name: str) -> dict[str, torch.Tensor]:
    """The whole tensors of a checkpoint, whatever ranks wrote their parts."""
    from safetensors import safe_open

    folder = run / "checkpoints" / name
    index, found = read_json(folder / "index.json")["tensors"], {}
    for key, entry in index.items():
        found[key] = torch.zeros(entry["shape"])
        for part in entry["parts"]:
            stored = f"{key}@{','.join(map(str, part['offset']))}" if any(part["offset"]) else key
            place = tuple(slice(at, at + size) for at, size in zip(part["offset"], part["shape"], strict=True))
            with safe_open(folder / part["file"], framework="pt") as file:
                found[key][place] = file.get_tensor(stored)
    return found


def table(run: Path, name: str, kind: str) -> np.ndarray:
    """The rows of table ``kind``."""
    return tensors_of(run, name)[f"model.tables.embeddings.{kind}.weight"].numpy()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a grown and permuted one, and a run on the first one, with a table of users."""
    folder = tmp_path_factory.mktemp("source")
    first = random_log(600, kind="string")
    # other users and items, and other counts, so that most dense ids are others
    more = pl.concat([first, random_log(900, seed=5, kind="string", num_users=70, num_items=60)])
    for name, log in (("first", first), ("grown", more)):
        log.write_parquet(folder / f"{name}.parquet")
        prepare(DataConfig(log=str(folder / f"{name}.parquet"), store=str(folder / name)))
    run_here([*tiny_run(str(folder / "first"), folder / "run", 4), WITH_USERS])
    return folder


def warm(source: Path, run: Path, store: str = "grown") -> list[str]:
    """Overrides of a run of two steps that begins with the source's model and keeps what it began with."""
    words = [*tiny_run(str(source / store), run, 2), WITH_USERS, f"init_from={source / 'run'}"]
    return [*words, "checkpoint.keep_last=9"]


def train_on_ranks(words: list[str]) -> None:
    """Of a rank."""
    run_here([*words, f"hardware.num_ranks={dist.get_world_size()}", "data.num_data_shards=2"])


def rows_by_raw_id(source: Path, store: str, kind: str) -> tuple[np.ndarray, int]:
    """For each row of ``store`` the row of the source's, by raw id, or -1; and how many there are."""
    reads = {"item": raw_items, "user": raw_users}[kind]
    here = reads(str(source / store), load_manifest(str(source / store))).to_pylist()
    there = reads(str(source / "first"), load_manifest(str(source / "first"))).to_pylist()
    return np.array([there.index(raw) if raw in there else -1 for raw in here]), len(here)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_every_row_is_that_of_its_raw_id_and_new_rows_begin_as_ever(source: Path, tmp_path: Path, num_ranks: int):
    words = warm(source, tmp_path / "run")
    if num_ranks == 1:
        run_here(words)
    else:
        run_ranks(2, train_on_ranks, [*words, "sharding=row_wise"])
    for kind in ("item", "user"):
        rows, num_rows = rows_by_raw_id(source, "grown", kind)
        before = table(source / "run", "best", kind)
        after = table(tmp_path / "run", "step-00000000", kind)
        fresh = initial_rows(0, kind, 0, num_rows, 8, load_config().model.initial_std).numpy()
        assert (rows < 0).any(), "some are new"
        assert (rows[rows >= 0] != np.flatnonzero(rows >= 0)).any(), "some have another place"
        np.testing.assert_array_equal(after, np.where((rows < 0)[:, None], fresh, before[rows]))
        told = read_json(tmp_path / "run" / "summary.json")["warm_start"]
        assert (told[f"num_{kind}s_taken"], told[f"num_{kind}s_new"]) == ((rows >= 0).sum(), (rows < 0).sum())
    theirs, ours = tensors_of(source / "run", "best"), tensors_of(tmp_path / "run", "step-00000000")
    dense = [name for name in theirs if name.startswith("model.") and ".tables." not in name]
    assert dense
    assert all(torch.equal(theirs[name], ours[name]) for name in dense)
    assert not any(tensor.any() for name, tensor in ours.items() if name.startswith("optimizer."))


def test_the_same_store_gives_the_same_model_with_its_optimizers(source: Path, tmp_path: Path):
    run_here([*warm(source, tmp_path / "run", "first"), "init_optimizer=true"])
    theirs, ours = tensors_of(source / "run", "best"), tensors_of(tmp_path / "run", "step-00000000")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert ours[STATE].any()


def test_the_optimizers_state_follows_its_rows(source: Path, tmp_path: Path):
    run_here([*warm(source, tmp_path / "run"), "init_optimizer=true"])
    rows, _ = rows_by_raw_id(source, "grown", "item")
    before = tensors_of(source / "run", "best")[STATE].numpy()
    after = tensors_of(tmp_path / "run", "step-00000000")[STATE].numpy()
    np.testing.assert_array_equal(after, np.where(rows < 0, 0, before[rows]))


def test_a_restart_does_not_ask_the_other_run_and_loses_nothing(source: Path, tmp_path: Path):
    words = warm(source, tmp_path / "run")
    run_here(words)
    losses = [row["loss"] for row in logged_steps(tmp_path / "run")]
    (tmp_path / "run" / "summary.json").unlink()
    for later in ("step-00000002",):
        (tmp_path / "run" / "checkpoints" / later / "progress.json").unlink()
    hidden = (source / "run").rename(source / "hidden")
    try:
        assert preflight(words) == 0
        run_here(words)
    finally:
        hidden.rename(source / "run")
    assert [row["loss"] for row in logged_steps(tmp_path / "run")] == losses
    assert read_json(tmp_path / "run" / "summary.json")["warm_start"]["step"] > 0
    identity = read_json(tmp_path / "run" / IDENTITY)
    assert identity["init_from"] == str(source / "run")
    assert (identity["began_with.checkpoint"], len(identity["began_with.sum"])) == ("best", 16)


REFUSED = {
    "model.embedding_dim=16": "model.embedding_dim=16, but init_from=.* was trained with model.embedding_dim=8",
    "model.num_blocks=2": "model.num_blocks=2",
    "model.user_input=none": "model.user_input=none, but .* model.user_input=add",
    "data.max_history=9": "data.max_history=9",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_model_that_does_not_fit_is_refused_by_key_before_a_rank_starts(
    source: Path, tmp_path: Path, override: str, capfd: pytest.CaptureFixture[str]
):
    assert preflight([*warm(source, tmp_path / "run"), override]) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    import re

    assert re.search(REFUSED[override], told), told


def test_no_run_no_optimizer_and_no_common_item_are_refused(source: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"init_optimizer=true takes over .* init_from=RUN_DIR"):
        load_config(["init_optimizer=true"])
    words = tiny_run(str(source / "grown"), tmp_path / "run", 2)
    with pytest.raises(ConfigError, match=r"init_from=.*nothing holds no run"):
        run_here([*words, f"init_from={tmp_path / 'nothing'}"])
    random_log(200, kind="dense").write_parquet(tmp_path / "log.parquet")
    prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "numbers")))
    other = [*TINY_RUN, WITH_USERS, f"data.store={tmp_path / 'numbers'}", f"run_dir={tmp_path / 'other'}"]
    with pytest.raises(ConfigError, match=r"item ids that are whole numbers, those of init_from=.* are texts"):
        run_here([*other, "num_steps=1", f"init_from={source / 'run'}"])


def test_a_store_that_is_gone_is_named(source: Path, tmp_path: Path):
    hidden = (source / "first").rename(source / "hidden")
    try:
        with pytest.raises(ConfigError, match=r"trained on version 1 of data\.store=.*first, which cannot be read"):
            run_here(warm(source, tmp_path / "run"))
    finally:
        hidden.rename(source / "first")


def test_ids_are_matched_by_what_they_are():
    import pyarrow as pa

    assert dense_ids(pa.array(["b", "x", "a"]), pa.array(["a", "b"])).tolist() == [1, -1, 0]
    assert dense_ids(pa.array([7, 9], pa.int32()), pa.array([9, 7], pa.int64())).tolist() == [1, 0]
