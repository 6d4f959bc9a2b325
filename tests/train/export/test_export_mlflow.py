"""An export that is an MLflow model too: MLflow loads it without this project, and gets the lists of the run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from alone import without

from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from runs import tiny_run
from train.evaluation.preflight import evaluated_run
from train.export.export import main
from train.recommend.run import recommend
from train.run import main as train

pytest.importorskip("mlflow")
BLOCKED = (
    *("configs", "data_pipeline", "models", "train", "launch", "benchmarks", "shardrec"),
    *("torchrec", "fbgemm_gpu", "polars", "hydra", "omegaconf", "xxhash", "tensorboard"),
)
MLFLOW_ALONE = f"""
{without(*BLOCKED)}
import json, pickle, sys
import cloudpickle, mlflow.pyfunc, pandas, safetensors.torch
import torch, torch.export._trace, torch.export.pt2_archive, torch._weights_only_unpickler
def refuse(*args, **options): raise AssertionError("a pickle was read")
pickle.load = pickle.loads = pickle.Unpickler = torch._weights_only_unpickler.Unpickler = refuse
cloudpickle.load = cloudpickle.loads = torch.load = torch.serialization.load = refuse
model = mlflow.pyfunc.load_model(sys.argv[1])
asked = json.load(sys.stdin)
found = []
for rows in asked:
    frame = model.input_example if rows == "example" else pandas.DataFrame(rows)
    try:
        found.append(model.predict(frame, params={{"k": 7}})[["items", "scores"]].to_dict("list"))
    except (ValueError, mlflow.exceptions.MlflowException) as error:
        found.append(str(error))
print(json.dumps([found, model.metadata.signature.to_dict()]))
"""


def answers(export: Path, *asked: object) -> tuple[list[Any], dict[str, str]]:
    """What MLflow alone predicts for each frame of rows that is ``asked``, and the signature."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", MLFLOW_ALONE, str(export)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        cwd=export.parent,
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr
    found, signature = json.loads(done.stdout.splitlines()[-1])
    return found, signature


def examples_of(export: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((export / "example.json").read_text())["examples"]
    return found


def recommended(run: Path, output: Path) -> pl.DataFrame:
    overrides = [f"run_dir={run}", f"recommend.output={output}", "recommend.history=before_test", "recommend.k=7"]
    recommend(evaluated_run(overrides))
    return pl.read_parquet(output)


@pytest.mark.slow
def test_mlflow_alone_recommends_what_the_run_recommends(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    asked = [f"run_dir={run}", f"export.output={folder}", "export.mlflow=true", "export.examples=40"]
    assert main(asked) == 0
    rows = recommended(run, tmp_path / "rows.parquet")
    examples = examples_of(folder)
    given = [{name: each[name] for name in ("history", "seen")} for each in examples]
    (found, by_default, unknown, example, other_ids, nothing), signature = answers(
        folder, given, [{"history": each["seen"]} for each in given], [{"history": [-1]}], "example",
        [{"history": ["a"]}], [{"seen": [1]}],
    )  # fmt: skip
    for each, items, scores in zip(examples, found["items"], found["scores"], strict=True):
        wanted = rows.filter(pl.col("user_id") == each["user"])
        assert items == wanted["item_id"].to_list()
        assert scores == pytest.approx(wanted["score"].to_list(), abs=1e-5)
    assert by_default["items"] == found["items"], "what a user has seen is its history, if nothing else is said"
    assert unknown == {"items": [[]], "scores": [[]]}
    assert example["items"] == found["items"][:1]
    assert "history" in other_ids
    assert "history" in nothing
    inputs = {each["name"]: each["required"] for each in json.loads(signature["inputs"])}
    assert inputs == {"history": True, "seen": False}
    assert str(Path(__file__).parents[3]) not in (folder / "MLmodel").read_text(), "no path of the machine"
    assert "mlflow_model.py" in json.loads((folder / "model.json").read_text())["files"]
    assert main(asked) == 0, "what Python compiled of its script is ours: the export is replaced"


@pytest.mark.slow
def test_mlflow_gives_users_and_features_to_a_model_that_has_them(tmp_path: Path) -> None:
    events = [(user, event) for user in range(60) for event in range(9)]
    rows = [f"u{user},i{(user * 7 + event) % 23},{event},{'ab'[event % 2]},{event / 3}" for user, event in events]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,kind,price", *rows]))
    features = ["data.features.kind.type=category", "data.features.price.type=number"]
    data = load_config([f"data.log={tmp_path}/log.csv", f"data.store={tmp_path}/store", *features]).data
    prepare(data)
    overrides = tiny_run(data.store, tmp_path / "run", num_steps=4)
    assert train([*overrides, "model.user_input=first_token", "model.event_features=[kind,price]"]) == 0
    assert main([f"run_dir={tmp_path}/run", "export.mlflow=true"]) == 0
    folder = tmp_path / "run" / "export"
    given = [{name: each[name] for name in ("history", "seen", "user", "features")} for each in examples_of(folder)]
    (found, nobody, few), signature = answers(
        folder, given, [given[0] | {"user": "nobody"}], [given[0] | {"features": {"kind": [1], "price": [0.5]}}]
    )
    wanted = recommended(tmp_path / "run", tmp_path / "rows.parquet")
    for each, items in zip(given, found["items"], strict=True):
        assert items == wanted.filter(pl.col("user_id") == each["user"])["item_id"].to_list()
    assert "user='nobody' is not in users.jsonl" in nobody
    assert "features.kind has 1 values, history" in few
    assert '"name": "user"' in signature["inputs"]
