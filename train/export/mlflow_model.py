"""This export as an MLflow model: ``mlflow.pyfunc.load_model(FOLDER).predict(frame, params={"k": 10})``.

Needs mlflow, pandas, torch and safetensors alone. MLflow runs this file, which is the model: nothing is unpickled.
"""

import runpy
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent
INPUTS = ("history", "seen", "user", "features")


class Recommendations(mlflow.pyfunc.PythonModel):
    """Answers as ``recommend`` of ``example.py`` does, a row of the frame each."""

    def load_context(self, context: Any) -> None:
        """Read the files of the folder."""
        example = runpy.run_path(str(FOLDER / "example.py"))
        self._recommend, self._users = example["recommend"], example["ROW_OF_USER"]
        self._is_left_out = example["MODEL"]["preprocessing"]["leave_out_seen"]
        self._features = [*example["MODEL"]["features"]]

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A frame of ``items`` and ``scores``, the best first; empty lists where no item of a history is known.

        ``model_input`` has ``history``, ``user`` where the model has a user table, ``features`` where it has some,
        and it may have ``seen``, by default the history where the run left seen items out.
        """
        k = int((params or {}).get("k", 10))
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        found = [self._lists(row, k) for row in model_input.to_dict("records")]
        return pd.DataFrame(found, columns=["items", "scores"])

    def _lists(self, row: dict[str, Any], k: int) -> tuple[list[Any], list[float]]:
        given = {name: _plain(row[name]) for name in INPUTS if row.get(name) is not None and not _is_nan(row[name])}
        self._refuse_unfit(given)
        given.setdefault("seen", given["history"] if self._is_left_out else [])
        best = self._recommend(**given, k=k)
        return [item for item, _ in best], [score for _, score in best]

    def _refuse_unfit(self, given: dict[str, Any]) -> None:
        if "history" not in given:
            raise ValueError("history is missing: a list of raw item ids, the oldest first")
        if self._users and given.get("user") not in self._users:
            raise ValueError(f"user={given.get('user')!r} is not in users.jsonl; the model knows those alone")
        for name in self._features:
            values = given.get("features", {}).get(name, [])
            if len(values) != len(given["history"]):
                raise ValueError(
                    f"features.{name} has {len(values)} values, history {len(given['history'])} events; give each "
                    f"event one"
                )


def _plain(value: Any) -> Any:
    """MLflow hands arrays over where lists were given."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_nan(value: Any) -> bool:
    """What pandas puts where a cell is empty."""
    return isinstance(value, float) and np.isnan(value)


mlflow.models.set_model(Recommendations())
