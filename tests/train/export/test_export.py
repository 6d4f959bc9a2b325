"""An export answers as the run does, and needs nothing of this project."""

import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from alone import without
from safetensors.torch import load_file

from configs.load import load_config
from configs.run_dir import local_run_dir
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import Subset
from data_pipeline.store.manifest import item_table, load_manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from ranks import run_ranks
from runs import tiny_run
from train.build import build_state
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.evaluation.preflight import evaluated_run
from train.export.export import main
from train.export.exported_model import padded
from train.run import main as train

BLOCKED = (
    *("configs", "data_pipeline", "models", "train", "launch", "benchmarks", "shardrec"),
    *("torchrec", "fbgemm_gpu", "pyarrow", "polars", "hydra", "omegaconf", "xxhash", "tensorboard", "numpy"),
)
ALONE = f"""
{without(*BLOCKED)}
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
NO_PICKLE = """
import pickle, sys
from pathlib import Path
import torch, torch.export._trace, torch.export.pt2_archive, torch.serialization, torch._weights_only_unpickler
import pyarrow.parquet as pq
from safetensors.torch import load_file
def refuse(*args, **options): raise AssertionError("a pickle was read")
pickle.load = pickle.loads = pickle.Unpickler = torch._weights_only_unpickler.Unpickler = refuse
torch.load = torch.serialization.load = refuse
readers = {".pt2": torch.export.load, ".safetensors": load_file, ".parquet": pq.read_table}
for path in sorted(Path(sys.argv[1]).iterdir()):
    readers.get(path.suffix, Path.read_text)(path)
    print(path.name)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


def model_of(folder: Path) -> Any:
    return json.loads((folder / "model.json").read_text())


def test_logits_of_the_program_are_those_of_the_run(run: Path, exported: Path) -> None:
    config = evaluated_run([f"run_dir={run}"])
    manifest = load_manifest(config.data.store)
    program = torch.export.load(exported / "encoder.pt2").module()
    vectors = load_file(exported / "item_vectors.safetensors")["item_vectors"]
    with process_group(config.hardware) as device:
        state = build_state(config, manifest, 1, ProcessGroupCollectives(), device)
        with DiskCheckpointer(local_run_dir(config), config.checkpoint) as checkpointer:
            checkpointer.restore_best(state)
        state.model.eval()
        num_histories = 0
        for batch in evaluation_batches(config.data, Subset.TEST, batch_size=128, rank=0, world_size=1, features=()):
            with torch.no_grad():
                ours = state.model(batch.history, torch.arange(manifest.num_items), is_training=False)
                lengths = batch.history.lengths
                query = program(item_vectors=padded(vectors[batch.history.item], lengths), lengths=lengths)
            assert torch.equal(vectors, ours.candidate_vector)
            torch.testing.assert_close(query @ vectors.t(), ours.query @ vectors.t(), rtol=0, atol=1e-5)
            num_histories += len(lengths)
    assert num_histories >= 1000


def test_the_example_runs_on_torch_and_safetensors_alone(exported: Path) -> None:
    done = python(ALONE, str(exported / "example.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "10 of 10 lists are those of the run"


def test_no_file_holds_a_pickle(exported: Path) -> None:
    done = python(NO_PICKLE, str(exported))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(path.name for path in exported.iterdir())
    with zipfile.ZipFile(exported / "encoder.pt2") as archive:
        for entry in archive.infolist():
            content = archive.read(entry)
            assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"))
            assert str(Path(torch.__file__).parent).encode() not in content, "no path of the machine that exported"


def test_model_json_lists_every_file_with_its_sum(exported: Path) -> None:
    files = model_of(exported)["files"]
    assert {*files, "model.json"} == {path.name for path in exported.iterdir()}
    for name, listed in files.items():
        content = (exported / name).read_bytes()
        assert listed == {"bytes": len(content), "sha256": sha256(content).hexdigest()}


def test_model_json_tells_the_quality_of_summary_json(run: Path, exported: Path) -> None:
    quality, summary = model_of(exported)["quality"], json.loads((run / "summary.json").read_text())
    assert quality["summary"] == summary["quality"]
    assert quality["run"] == summary["quality"]["test"]
    assert quality["exported"]["ndcg@10"] == pytest.approx(quality["run"]["ndcg@10"], abs=1e-3)
    assert model_of(exported)["run"]["step"] == summary["best_step"]


def test_row_n_of_the_vectors_is_line_n_of_the_ids(run: Path, exported: Path) -> None:
    config = evaluated_run([f"run_dir={run}"])
    manifest = load_manifest(config.data.store)
    raw = item_table(config.data.store, manifest, ["raw_item"]).column("raw_item").to_pylist()
    assert [json.loads(line) for line in (exported / "items.jsonl").open()] == raw
    table = pq.read_table(exported / "items.parquet")
    assert table.column("raw_item").to_pylist() == raw
    assert table.column("item").to_pylist() == list(range(manifest.num_items))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share"), [("float16", 0.5), ("int8", 0.25 + 4 / 64)])
def test_rounded_tables_are_smaller_and_keep_the_quality(
    run: Path, exported: Path, tmp_path: Path, dtype: str, share: float
) -> None:
    folder = tmp_path / "rounded"
    assert main([f"run_dir={run}", f"export.dtype={dtype}", f"export.output={folder}"]) == 0
    quality = model_of(folder)["quality"]
    assert abs(quality["ndcg@10_loss"]) <= 0.01
    sizes = [(each / "item_vectors.safetensors").stat().st_size for each in (folder, exported)]
    assert sizes[0] - 300 <= share * sizes[1]
    if dtype == "int8":
        done = python(ALONE, str(folder / "example.py"))
        assert done.returncode == 0, done.stdout + done.stderr


def export_here(overrides: list[str]) -> int:
    return main(overrides)


def test_two_ranks_write_the_files_of_one(run: Path, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "of_two"
    overrides = [f"run_dir={run}", f"export.output={folder}", "hardware.num_ranks=2", "sharding=row_wise"]
    assert run_ranks(2, export_here, overrides) == [0, 0]
    names = [path.name for path in exported.iterdir() if path.name not in ("model.json", "encoder.pt2")]
    for name in names:
        assert (folder / name).read_bytes() == (exported / name).read_bytes(), name
    assert model_of(folder)["quality"]["run"] == model_of(exported)["quality"]["run"]


def test_a_final_model_with_users_and_features_is_shipped_as_what_it_is(tmp_path: Path) -> None:
    events = [(user, event) for user in range(60) for event in range(9)]
    rows = [f"u{user},i{(user * 7 + event) % 23},{event},{'ab'[event % 2]},{event / 3}" for user, event in events]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,kind,price", *rows]))
    features = ["data.features.kind.type=category", "data.features.price.type=number"]
    data = load_config([f"data.log={tmp_path}/log.csv", f"data.store={tmp_path}/store", *features]).data
    prepare(data)
    overrides = tiny_run(data.store, tmp_path / "run", num_steps=4)
    overrides += ["model.user_input=first_token", "model.event_features=[kind,price]"]
    assert train([*overrides, "train.refit=true", "train.refit_on=everything"]) == 0
    assert main([f"run_dir={tmp_path}/run", "export.dtype=float16"]) == 0
    folder = tmp_path / "run" / "export"
    model = model_of(folder)
    assert model["run"]["checkpoint"] == "final"
    assert model["run"]["trained_on"] == "everything"
    assert not model["quality"]["is_held_out"]
    assert [each["name"] for each in model["program"]["inputs"]] == [
        "item_vectors",
        "lengths",
        "user_vectors",
        "features.kind",
        "features.price",
    ]
    assert [json.loads(line) for line in (folder / "users.jsonl").open()][:2] == ["u0", "u1"]
    done = python(ALONE, str(folder / "example.py"))
    assert done.returncode == 0, done.stdout + done.stderr
