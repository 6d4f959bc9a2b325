"""An old model on newer events: the same figures as by hand, nothing that it was trained on, nothing silently."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from logs import random_log

from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import DataConfig
from data_pipeline.batch import SequenceBatch
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.id_map import raw_items, raw_users
from data_pipeline.store.manifest import load_manifest
from ranks import run_ranks
from runs import run_here, tiny_run
from train.build import build_state
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.evaluate import main as evaluate
from train.evaluation.metrics import quality_of
from train.evaluation.preflight import main as preflight
from train.evaluation.user_ranks import RANKS_OF_EVALUATION, read_user_ranks

DAY = 86_400_000
WITH_USERS = "model.user_input=add"


def day(number: int, seed: int, num_users: int = 40, num_items: int = 30) -> pl.DataFrame:
    """300 events within a day, under ids that are texts."""
    log = random_log(300, seed=seed, kind="string", num_users=num_users, num_items=num_items)
    return log.with_columns(timestamp=pl.lit(number * DAY + 10**12) + pl.col("timestamp") * 60_000)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a store of three days, with a final fit on all of them, and the store after a fourth day."""
    folder = tmp_path_factory.mktemp("world")
    pl.concat([day(number, number) for number in range(3)]).write_parquet(folder / "first.parquet")
    prepare(DataConfig(log=str(folder / "first.parquet"), store=str(folder / "store")))
    words = [*tiny_run(str(folder / "store"), folder / "run", 4), WITH_USERS]
    assert run_here([*words, "train.refit=true", "train.refit_on=everything"]) == 0
    day(3, 9, num_users=55, num_items=45).write_parquet(folder / "fourth.parquet")
    prepare(DataConfig(log=str(folder / "fourth.parquet"), store=str(folder / "store"), append=True))
    return folder


def report_of(world: Path) -> dict:
    """What the last evaluation wrote."""
    return json.loads((world / "run" / "evaluation.json").read_text())


def ranks_by_hand(world: Path, model: str) -> tuple[list[float], dict[str, int]]:
    """The rank of each user's last event of all days, found with raw ids, lists and one user at a time."""
    store = str(world / "store")
    run = load_config([*tiny_run(store, world / "run", 4), WITH_USERS, "data.version=1"])
    first = load_manifest(store, 1)
    items, users = (read(store, first).to_pylist() for read in (raw_items, raw_users))
    logs = [pl.read_parquet(world / f"{name}.parquet") for name in ("first", "fourth")]
    events = pl.concat(logs).sort("timestamp", maintain_order=True)
    ranks, counts = [], {"num_new_item_targets": 0, "num_unknown_users": 0, "num_users_without_known_events": 0}
    with process_group(run.hardware) as device:
        state = build_state(run, first, 1, ProcessGroupCollectives(), device)
        with DiskCheckpointer(world / "run", run.checkpoint) as checkpointer:
            checkpointer.restore(model, state)
        state.model.eval()
        for (user,), own in events.group_by("user_id"):
            history = own["item_id"].to_list()
            if len(history) < 3:
                continue
            known = [items.index(item) for item in history[:-1] if item in items]
            if history[-1] not in items:
                counts["num_new_item_targets"] += 1
            if history[-1] not in items or not known:
                ranks.append(np.inf)
                counts["num_users_without_known_events"] += history[-1] in items
                continue
            counts["num_unknown_users"] += user not in users
            query, vectors = _query(state.model, known[-8:], users.index(user) if user in users else -1, len(items))
            score = (vectors @ query).double()
            target = items.index(history[-1])
            if target in known:
                ranks.append(np.inf)
                continue
            others = [item for item in range(len(items)) if item not in known and item != target]
            ahead = (score[others] > score[target]).sum() + 0.5 * (score[others] == score[target]).sum()
            ranks.append(1 + float(ahead))
    return ranks, counts


def _query(
    model: torch.nn.Module, history: list[int], user: int, num_items: int
) -> tuple[torch.Tensor, torch.Tensor]:
    item, lengths = torch.tensor(history), torch.tensor([len(history)])
    batch = SequenceBatch(item, lengths, torch.tensor([user]), torch.zeros_like(item))
    with torch.no_grad():
        found = model(batch, torch.arange(num_items), is_training=False)
    return found.query[0], found.candidate_vector


def test_the_figures_are_those_of_brute_force_by_raw_ids(world: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate([f"run_dir={world / 'run'}", f"data.store={world / 'store'}"]) == 0
    told, found = capsys.readouterr().out, report_of(world)
    ranks, counts = ranks_by_hand(world, "best")
    expected = quality_of(np.array(ranks))
    assert found["num_test_users"] == len(ranks)
    for name, value in expected.items():
        assert found["test"][name] == pytest.approx(value, abs=1e-9), name
    assert {name: found["not_known"][name] for name in counts} == counts
    assert counts["num_new_item_targets"] > 0
    assert counts["num_unknown_users"] > 0
    assert (
        found["num_seen_test_targets"]
        == sum(np.isinf(ranks)) - counts["num_new_item_targets"] - counts["num_users_without_known_events"]
    )
    assert (found["data"]["version"], found["trained_on"]["version"], found["checkpoint"]) == (2, 1, "best")
    assert found["data"]["fingerprint"] == load_manifest(str(world / "store")).fingerprint
    assert "version 2, not those that" in told
    assert f"does not know {counts['num_new_item_targets']} of the targets" in told
    kept = read_user_ranks(world / "run" / RANKS_OF_EVALUATION)
    assert sorted(kept.table.column("rank").to_pylist()) == sorted(ranks)
    events = pl.concat([pl.read_parquet(world / f"{name}.parquet") for name in ("first", "fourth")])
    events = events.sort("timestamp", maintain_order=True).group_by("user_id").agg("item_id")
    last = {user: (items[-1], len(items) - 1) for user, items in events.iter_rows() if len(items) >= 3}
    found_rows = kept.table.select(["user", "item", "history_length"]).to_pylist()
    assert {row["user"]: (row["item"], row["history_length"]) for row in found_rows} == last
    assert kept.protocol["fingerprint"] == found["data"]["fingerprint"]


def test_without_a_store_or_with_the_runs_version_it_is_ranked_on_its_own_events(world: Path):
    own = json.loads((world / "run" / "summary.json").read_text())["quality"]["test"]
    for words in ([], ["data.version=1"], [f"data.store={world / 'store'}", "data.version=1"]):
        assert evaluate([f"run_dir={world / 'run'}", *words]) == 0
        assert report_of(world)["test"] == own
        assert "not_known" not in report_of(world)


def test_a_version_of_the_runs_store_may_be_named(world: Path):
    assert evaluate([f"run_dir={world / 'run'}", f"data.store={world / 'store'}"]) == 0
    newest = report_of(world)
    assert evaluate([f"run_dir={world / 'run'}", "data.version=2"]) == 0
    assert report_of(world)["test"] == newest["test"]


def test_events_that_the_model_was_trained_on_are_not_ranked(world: Path, capsys: pytest.CaptureFixture[str]):
    final = [f"run_dir={world / 'run'}", f"data.store={world / 'store'}", "checkpoint.use=final"]
    assert evaluate(final) == 2
    told = capsys.readouterr().err
    assert "was trained on, so that ranking them says nothing" in told
    assert "data.split=global_time" in told
    assert told.count("\n") == 1
    start = np.datetime64(10**12 + 3 * DAY, "ms")
    dates = ["data.split=global_time", f"data.global_time_valid={start - 1}", f"data.global_time_test={start}"]
    assert evaluate([*final, *dates]) == 0
    found = report_of(world)
    assert (found["checkpoint"], found["split"]) == ("final", "global_time")


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_store_whose_ids_are_of_another_kind_is_refused(
    world: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    numbers, texts = random_log(300, kind="dense"), random_log(300, kind="string")
    texts.with_columns(numbers[f"{kind}_id"]).write_parquet(tmp_path / "log.parquet")
    prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "numbers")))
    assert preflight([f"run_dir={world / 'run'}", f"data.store={tmp_path / 'numbers'}"]) == 2
    told = capsys.readouterr().err
    assert f"{kind} ids that are whole numbers" in told
    assert told.count("\n") == 1


def test_a_run_without_a_split_needs_one_to_be_ranked_on_newer_events(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [*tiny_run(str(world / "store"), tmp_path / "run", 1), "data.version=1", "data.split=none"]
    assert run_here(words) == 0
    newer = [f"run_dir={tmp_path / 'run'}", "data.version=2"]
    assert preflight(newer) == 2
    assert "data.split=leave_one_out or data.split=global_time" in capsys.readouterr().err
    assert evaluate([*newer, "data.split=leave_one_out"]) == 2
    assert "was trained on" in capsys.readouterr().err


def test_a_warm_start_on_test_events_is_refused(world: Path, tmp_path: Path):
    words = [*tiny_run(str(world / "store"), tmp_path / "run", 1), WITH_USERS, f"init_from={world / 'run'}"]
    with pytest.raises(ConfigError, match=r"trained on \d+ of the test targets of this run.*checkpoint\.use=best"):
        run_here(words)
    assert run_here([*words, "checkpoint.use=best"]) == 0


def evaluate_on_ranks(words: list[str]) -> int:
    """Of a rank."""
    return evaluate(words)


def test_two_ranks_find_the_same(world: Path):
    words = [f"run_dir={world / 'run'}", f"data.store={world / 'store'}"]
    assert evaluate(words) == 0
    alone = report_of(world)
    assert run_ranks(2, evaluate_on_ranks, [*words, "hardware.num_ranks=2"]) == [0, 0]
    assert report_of(world) == alone
