"""Classical models on the ratings of a log: the same on any number of ranks, and measured as numpy would."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import load_manifest
from ranks import run_ranks
from runs import assert_resumed, losses_and_ranks, run_cut_and_resume, tiny_run
from train.evaluate import evaluate
from train.evaluation.preflight import evaluated_run
from train.preflight import check

NUM_STEPS = 8
SET_HERE = ("model.num_blocks", "model.num_heads", "evaluation.every_steps", "checkpoint.every_steps")
RATED = ["loss=mse", "loss.label=stars"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of ratings from 1 to 5 that users and items decide, as numbers and between 0 and 1."""
    folder, draw = tmp_path_factory.mktemp("ratings"), np.random.default_rng(0)
    user, item = draw.integers(0, 120, 1500), draw.integers(0, 30, 1500)
    rating = np.clip(3 + (user % 3 - 1) + (item % 2) + draw.normal(0, 0.3, 1500), 1, 5).round(1)
    log = {"user_id": user, "item_id": item, "timestamp": np.arange(1500), "stars": rating}
    some = np.where(draw.random(1500) < 0.1, np.nan, rating)
    pl.DataFrame({**log, "kind": item % 2, "some": some}).write_parquet(folder / "log.parquet")
    options = [f"data.features.{name}.type=number" for name in ("stars", "some", "share")]
    options += ["data.features.share.column=stars", "data.features.share.normalise=min_max"]
    options += ["data.features.kind.type=category"]
    prepare(load_config([f"data.log={folder}/log.parquet", f"data.store={folder}/store", *options]).data)
    return f"{folder}/store"


def choices_of(store: str, folder: Path, *overrides: str) -> list[str]:
    keys = [each for each in tiny_run(store, folder, NUM_STEPS) if each.split("=")[0] not in SET_HERE]
    every = ["evaluation.every_steps=4", "checkpoint.every_steps=4", "optimizer.table_lr=0.1"]
    return [*keys, *every, *overrides]


def evaluate_here(run_dir: str) -> None:
    evaluate(evaluated_run([f"run_dir={run_dir}"]))


def cut_here(overrides: list[str], folder: str) -> None:
    run_cut_and_resume([each for each in overrides if not each.startswith("run_dir=")], folder, 4)


@pytest.fixture(scope="module")
def run_dir(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of ``dot`` on ratings, cut after a checkpoint and resumed."""
    folder = tmp_path_factory.mktemp("run") / "dot"
    run_ranks(1, cut_here, choices_of(store, folder, "model=dot", *RATED), str(folder))
    return folder


def test_a_resumed_run_on_ratings_repeats_the_losses_bit_for_bit(run_dir: Path) -> None:
    first, resumed = assert_resumed(run_dir, 4, NUM_STEPS)
    assert resumed == first
    assert first[-1] < first[0], "it learns"


def test_errors_are_told_beside_the_ranking_and_in_the_metrics(run_dir: Path) -> None:
    quality = json.loads((run_dir / "summary.json").read_text())["quality"]
    assert {"label", "rmse", "mae"} == set(quality["ratings"])
    assert 0 < quality["ratings"]["mae"] <= quality["ratings"]["rmse"] < 2
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert any("valid/rmse" in row and "valid/mae" in row and "valid/ndcg@10" in row for row in rows)


def test_any_number_of_ranks_tells_the_same_errors_to_the_last_bit(run_dir: Path) -> None:
    told = json.loads((run_dir / "summary.json").read_text())["quality"]["ratings"]
    for num_ranks in (2, 4):
        run_ranks(num_ranks, evaluate_here, str(run_dir))
        assert json.loads((run_dir / "evaluation.json").read_text())["ratings"] == told


def predictions_here(overrides: list[str]) -> tuple[float, float, float, float]:
    """RMSE and MAE of an untrained model, and those of predicting the training events' mean."""
    import torch

    from data_pipeline.split import Subset
    from train.build import build_state
    from train.distributed.collectives import ProcessGroupCollectives
    from train.evaluation.ratings import rating_errors

    config = load_config(overrides)
    manifest = load_manifest(config.data.store)
    state = build_state(config, manifest, 1, ProcessGroupCollectives(), torch.device("cpu"))
    found = rating_errors(state, config, manifest, Subset.TEST)
    rows = pl.read_parquet(f"{config.data.store}/histories/*.parquet").get_column("stars").to_list()
    targets = np.array([ratings[-1] for ratings in rows if len(ratings) >= 3])
    training = np.array([each for ratings in rows for each in (ratings[:-2] if len(ratings) >= 3 else ratings)])
    error = np.float32(training.mean(dtype=np.float64)) - targets.astype(np.float64)
    return found["rmse"], found["mae"], float(np.sqrt((error**2).mean())), float(np.abs(error).mean())


@pytest.mark.parametrize(("model", "label"), [("dot", "stars"), ("sigmoid_linear", "share")])
def test_a_model_begins_at_the_mean_of_the_training_events_and_errors_are_in_the_unit_of_the_log(
    store: str, tmp_path: Path, model: str, label: str
) -> None:
    overrides = choices_of(
        store, tmp_path, f"model={model}", "loss=mse", f"loss.label={label}", "model.initial_std=1e-6"
    )
    rmse, mae, expected_rmse, expected_mae = run_ranks(1, predictions_here, overrides)[0]
    assert rmse == pytest.approx(expected_rmse, abs=1e-5)
    assert mae == pytest.approx(expected_mae, abs=1e-5)


def losses_here(cases: list[list[str]]) -> list[list[float]]:
    return [losses_and_ranks(each, num_steps=4)[0] for each in cases]


@pytest.mark.slow
def test_the_number_of_ranks_and_the_plan_do_not_change_the_losses_on_ratings(store: str, tmp_path: Path) -> None:
    cases = [
        choices_of(store, tmp_path, f"model={model}", "loss=mse", f"loss.label={label}", f"sharding={plan}")
        for model, label in (("dot", "stars"), ("sigmoid_linear", "share"))
        for plan in ("row_wise", "data_parallel")
    ]
    one = run_ranks(1, losses_here, cases)[0]
    for num_ranks in (2, 4):
        for found in run_ranks(num_ranks, losses_here, cases):
            np.testing.assert_allclose(found, one, rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model=dot", "loss=mse"], "loss=mse needs loss.label=NAME"),
        (["loss=mse", "loss.label=stars"], "loss.label=stars trains model=dot or model=sigmoid_linear"),
        (["model=dot", "evaluation.metric=rmse"], "evaluation.metric=rmse .* needs loss=mse"),
        (["model=dot", "loss=mse", "loss.label=star"], "loss.label=star: .* has no feature 'star'"),
        (["model=dot", "loss=mse", "loss.label=kind"], "loss.label=kind: .* is a category"),
        (["model=dot", "loss=mse", "loss.label=some"], "loss.label=some: [0-9]+ of 1,500 events .* have none"),
        (["model=sigmoid_linear", *RATED], "loss.label=stars reaches from 1.1 to 5 in .*normalise=min_max"),
    ],
)
def test_what_cannot_be_predicted_is_refused_by_key(
    store: str, tmp_path: Path, overrides: list[str], named: str
) -> None:
    typed = [f"data.store={store}", f"run_dir={tmp_path}/run", *overrides]
    with pytest.raises(ConfigError, match=named):
        check(load_config(typed), typed)
