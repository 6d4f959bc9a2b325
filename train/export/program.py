"""The encoder as a ``torch.export`` program: no Python of ours, and no pickle, is needed to run it.

B histories, L the longest of them, D the width of the model.
"""

import copy
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from configs.schema import UserInput
from models.dense_recommender import DenseRecommender
from models.recommender import Recommender

ENCODER = "encoder.pt2"
Inputs = dict[str, Any]
"""By the names of :meth:`DenseRecommender.forward`; features are a dict of their own."""


def encoder_program(recommender: Recommender, max_history: int) -> ExportedProgram:
    """The program of ``recommender`` on a CPU, for any B and for L from 1 to ``max_history``."""
    dense = copy.deepcopy(DenseRecommender(recommender)).cpu().eval()
    inputs = made_up_inputs(recommender, num_histories=2, length=min(2, max_history))
    with torch.no_grad(), _quietly():
        program = torch.export.export(dense, (), inputs, dynamic_shapes=_dynamic_shapes(inputs, max_history))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine are nobody's business
    program.example_inputs = None
    return program


def program_bytes(program: ExportedProgram) -> bytes:
    """The archive that ``torch.export.load`` reads: its graph is JSON and its weights are raw bytes.

    The example of its inputs is the one thing that torch pickles: it was left out.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def load_program(content: bytes) -> nn.Module:
    """The module in what :func:`program_bytes` returned, called with keywords: ``module(**inputs)``."""
    loaded: nn.Module = torch.export.load(io.BytesIO(content)).module()
    return loaded


def made_up_inputs(recommender: Recommender, num_histories: int, length: int) -> Inputs:
    """Inputs of the right names, types and shapes."""
    width = recommender.embedding_dim
    inputs: Inputs = {
        "item_vectors": torch.zeros(num_histories, length, width),
        "lengths": torch.full((num_histories,), length),
    }
    if recommender.user_input is not UserInput.NONE:
        inputs["user_vectors"] = torch.zeros(num_histories, width)
    if recommender.event_features is not None:
        inputs["features"] = {
            name: torch.zeros(num_histories, length, dtype=torch.int64 if is_category else torch.float32)
            for name, is_category in recommender.event_features.is_category.items()
        }
    return inputs


def described_inputs(inputs: Inputs) -> list[dict[str, Any]]:
    """Name, number format and shape of each input, for ``model.json``."""
    dims = {"item_vectors": ["B", "L"], "lengths": ["B"], "user_vectors": ["B"]}

    def described(name: str, value: Tensor, letters: list[str]) -> dict[str, Any]:
        shape = [*letters, *value.shape[len(letters) :]]
        return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": shape}

    found = [described(name, value, dims[name]) for name, value in inputs.items() if name in dims]
    features = inputs.get("features", {})
    return found + [described(f"features.{name}", value, ["B", "L"]) for name, value in features.items()]


def _dynamic_shapes(inputs: Inputs, max_history: int) -> dict[str, Any]:
    batch, length = Dim("B"), Dim("L", max=max_history) if max_history > 1 else 1
    both: dict[int, Any] = {0: batch, 1: length} if max_history > 1 else {0: batch}
    dims: dict[str, Any] = {"item_vectors": both, "lengths": {0: batch}, "user_vectors": {0: batch}}
    found = {name: dims[name] for name in inputs if name in dims}
    if "features" in inputs:
        found["features"] = dict.fromkeys(inputs["features"], both)
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what torch tells its own developers about while it traces."""
    logger = logging.getLogger("torch.fx._symbolic_trace")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
