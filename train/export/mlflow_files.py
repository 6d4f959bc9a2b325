"""The files that make an export an MLflow model of the flavour pyfunc: ``mlflow.pyfunc.load_model(FOLDER)``.

MLflow's model is a script that lies in the folder, not a pickle, and it reads the tables where they are.
"""

import logging
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.schema import RunConfig, UserInput
from data_pipeline.store.features import chosen_features
from data_pipeline.store.manifest import Manifest, item_table
from data_pipeline.store.raw_users import RawUsers
from train.export.examples import Entry
from train.export.folder import FILES_OF_MLFLOW

SCRIPT = Path(__file__).with_name("mlflow_model.py")
DEFAULT_K = 10
NEEDS = ("mlflow-skinny", "pandas", "safetensors", "torch")


def write_mlflow(folder: Path, config: RunConfig, manifest: Manifest, examples: list[Entry]) -> dict[str, Any]:
    """:data:`FILES_OF_MLFLOW`, and what ``model.json`` says of them; the input example is one of ``examples``."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # an export tells nobody of itself
    import mlflow  # an extra: looked for before anything was started
    import pandas as pd

    names = [*_inputs(config, manifest)]
    example = pd.DataFrame([{name: entry[name] for name in names} for entry in examples[:1]]) if examples else None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            path=str(made),
            python_model=str(SCRIPT),
            signature=_signature(config, manifest),
            input_example=example,
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in NEEDS],
        )
        _forget_this_machine(made / FILES_OF_MLFLOW[0])
        for name in FILES_OF_MLFLOW:
            if (made / name).exists():  # there is no example of nobody
                shutil.move(made / name, folder / name)
    return {"file": FILES_OF_MLFLOW[0], "what": "an MLflow model: `mlflow.pyfunc.load_model(FOLDER)`"}


def _forget_this_machine(path: Path) -> None:
    """The script lies in the folder: where it was copied from, and how small the folder was then, is nobody's
    business."""
    from mlflow.models import Model

    description = Model.load(str(path))
    flavour = description.flavors["python_function"]
    flavour["model_code_path"] = SCRIPT.name
    flavour.pop("cloudpickle_version", None)  # nothing is pickled
    description.model_size_bytes = None
    description.save(str(path))


def _signature(config: RunConfig, manifest: Manifest) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    item = _kind(item_table(config.data.store, manifest, ["raw_item"]).column("raw_item").type)
    lists = [ColSpec(Array(item), "items"), ColSpec(Array(DataType.double), "scores")]
    inputs = [
        ColSpec(kind, name, required=is_needed) for name, (kind, is_needed) in _inputs(config, manifest).items()
    ]
    params = ParamSchema([ParamSpec("k", DataType.long, DEFAULT_K)])
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(lists), params=params)


def _inputs(config: RunConfig, manifest: Manifest) -> dict[str, tuple[Any, bool]]:
    """MLflow's type of each column of an input, and whether a row needs it."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    item = _kind(item_table(config.data.store, manifest, ["raw_item"]).column("raw_item").type)
    found: dict[str, tuple[Any, bool]] = {"history": (Array(item), True), "seen": (Array(item), False)}
    if config.model.user_input is not UserInput.NONE:
        user = RawUsers(config.data.store, manifest).dtype.is_integer()
        found["user"] = (DataType.long if user else DataType.string, True)
    chosen = chosen_features(config.data.store, manifest.features, config.model.event_features)
    if chosen:
        kinds = {name: DataType.long if each.num_codes else DataType.double for name, each in chosen.items()}
        found["features"] = (Object([Property(name, Array(kind)) for name, kind in kinds.items()]), True)
    return found


def _kind(raw: pa.DataType) -> Any:
    from mlflow.types import DataType

    return DataType.long if pa.types.is_integer(raw) else DataType.string
