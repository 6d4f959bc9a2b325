"""The further forms of an export: each answers as the program does, or is not shipped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from configs.errors import ConfigError
from train.export import compiled
from train.export.export import main

WIDTH, MAX_HISTORY = 16, 8


def histories(exported: Path) -> dict[str, torch.Tensor]:
    vectors = load_file(exported / "item_vectors.safetensors")["item_vectors"]
    draw = torch.Generator().manual_seed(1)
    drawn = torch.randint(len(vectors), (50, MAX_HISTORY), generator=draw)
    return {"item_vectors": vectors[drawn], "lengths": torch.randint(1, MAX_HISTORY + 1, (50,), generator=draw)}


def model_of(folder: Path) -> Any:
    return json.loads((folder / "model.json").read_text())


@pytest.mark.slow
def test_every_further_form_answers_as_the_program_does(run: Path, exported: Path, tmp_path: Path) -> None:
    onnxruntime, faiss = pytest.importorskip("onnxruntime"), pytest.importorskip("faiss")
    pytest.importorskip("onnxscript")
    folder = tmp_path / "more"
    asked = ["export.onnx=true", "export.faiss=true", "export.aot_inductor=true"]
    assert main([f"run_dir={run}", f"export.output={folder}", *asked]) == 0
    model, inputs = model_of(folder), histories(exported)
    assert {"encoder.onnx", "encoder_compiled.pt2", "items.faiss"} <= model["files"].keys()
    query = torch.export.load(folder / "encoder.pt2").module()(**inputs).detach()
    session = onnxruntime.InferenceSession(str(folder / "encoder.onnx"))
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    np.testing.assert_allclose(found, query.numpy(), rtol=1e-5, atol=1e-5)
    compiled_query = torch._inductor.aoti_load_package(str(folder / "encoder_compiled.pt2"))(**inputs)
    torch.testing.assert_close(compiled_query, query, rtol=1e-5, atol=1e-5)
    index = faiss.read_index(str(folder / "items.faiss"))
    assert index.ntotal == model["tables"]["item"]["shape"][0]
    assert 0.5 < model["faiss"]["recall@10"] <= 1
    assert 500 < model["faiss"]["queries"] <= 1000


def test_a_form_that_answers_otherwise_is_refused(exported: Path) -> None:
    program = torch.export.load(exported / "encoder.pt2").module()
    trials = compiled.trial_inputs(exported, {}, MAX_HISTORY)
    assert sum(len(each["lengths"]) for each in trials) >= 1000
    assert compiled.largest_difference(lambda inputs: program(**inputs), program, trials, "export.onnx") == 0
    with pytest.raises(ConfigError, match=r"export\.onnx=true: its queries differ"):
        compiled.largest_difference(lambda inputs: program(**inputs) + 1e-3, program, trials, "export.onnx")
