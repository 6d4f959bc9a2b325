"""The encoder in two further forms, each kept only if it answers as the program does: ONNX, and compiled code.

B histories, L the longest of them, D the width of the model.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from configs.errors import ConfigError
from train.export.program import Inputs
from train.export.rounding import decode_rows
from train.export.table_file import SCALE

ONNX, COMPILED = "encoder.onnx", "encoder_compiled.pt2"
TOLERANCE = 1e-5
"""How far a query may lie from the program's, of numbers near 1: the queries leave a layer norm."""
NUM_HISTORIES, BATCH = 1000, 100
MAX_ROWS = 65_536
"""Rows of the item table that made-up histories are drawn from."""
Runner = Callable[[Inputs], Tensor]


def write_onnx(folder: Path, program: ExportedProgram, trials: list[Inputs]) -> dict[str, Any]:
    """``encoder.onnx``, and what ``model.json`` says of it. Raises :class:`ConfigError` where it differs."""
    import onnxruntime  # an extra: looked for before anything was started

    made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None, "with dynamo it is returned"
    made.save(str(folder / ONNX), external_data=False)
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: Inputs) -> Tensor:
        values = [value.numpy() for value in tree_leaves(inputs)]
        return torch.from_numpy(session.run(None, dict(zip(names, values, strict=True)))[0])

    difference = largest_difference(run, program.module(), trials, "export.onnx")
    return {"file": ONNX, "what": "the encoder as ONNX", "inputs": names, "largest_difference": difference}


def write_compiled(folder: Path, program: ExportedProgram, trials: list[Inputs]) -> dict[str, Any]:
    """``encoder_compiled.pt2``, by AOTInductor, and what ``model.json`` says of it. Raises as :func:`write_onnx`."""
    path = str(folder / COMPILED)
    program.example_inputs = ((), trials[0])  # AOTInductor asks for some
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=path)
        loaded = torch._inductor.aoti_load_package(path)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"export.aot_inductor=true: the encoder does not compile here ({reason})") from error
    difference = largest_difference(lambda inputs: loaded(**inputs), program.module(), trials, "export.aot_inductor")
    what = "the encoder compiled for this kind of processor: `torch._inductor.aoti_load_package`"
    return {"file": COMPILED, "what": what, "largest_difference": difference}


@torch.no_grad()
def trial_inputs(folder: Path, example: Inputs, max_history: int) -> list[Inputs]:
    """:data:`NUM_HISTORIES` histories of items drawn from the table in ``folder``, of every length, in batches of
    different lengths; the last two are one history, and histories of one event."""
    with safe_open(folder / "item_vectors.safetensors", framework="pt") as file:
        scale = file.get_slice(SCALE)[:MAX_ROWS] if SCALE in file.keys() else None  # noqa: SIM118 no dict
        rows = decode_rows(file.get_slice("item_vectors")[:MAX_ROWS], scale)
    draw = torch.Generator().manual_seed(0)
    sizes = [(BATCH, 1 + number * (max_history - 1) // (NUM_HISTORIES // BATCH - 1)) for number in range(10)]
    return [_drawn(rows, example, *size, draw) for size in (*sizes, (1, max_history), (BATCH, 1))]


def _drawn(rows: Tensor, example: Inputs, num: int, longest: int, draw: torch.Generator) -> Inputs:
    def numbers(like: Tensor, *shape: int) -> Tensor:
        if like.dtype is torch.int64:
            return torch.randint(2, shape, generator=draw)  # codes that every vocabulary has
        return torch.randn(shape, generator=draw)

    drawn = torch.randint(len(rows), (num, longest), generator=draw)
    inputs: Inputs = {
        "item_vectors": rows[drawn],
        "lengths": torch.randint(1, longest + 1, (num,), generator=draw),
    }
    if "user_vectors" in example:
        inputs["user_vectors"] = numbers(example["user_vectors"], num, rows.shape[1])
    if "features" in example:
        inputs["features"] = {name: numbers(like, num, longest) for name, like in example["features"].items()}
    return inputs


@torch.no_grad()
def largest_difference(run: Runner, program: nn.Module, trials: list[Inputs], key: str) -> float:
    """How far answers of ``run`` to ``trials`` are from those of ``program``, at most.

    Raises :class:`ConfigError`, which names ``key``, where that is beyond :data:`TOLERANCE`.
    """
    largest = max(_differences(run, program, trials))
    if not largest <= TOLERANCE:
        raise ConfigError(
            f"{key}=true: its queries differ from the program's by {largest:.1e}, more than {TOLERANCE:.0e}, so that "
            f"nothing was exported; leave the key out"
        )
    return largest


def _differences(run: Runner, program: nn.Module, trials: list[Inputs]) -> Iterator[float]:
    for inputs in trials:
        expected = program(**inputs)
        scale = expected.abs().amax().clamp(min=1)
        yield float((run(inputs) - expected).abs().amax() / scale)
