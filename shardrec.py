"""Shardrec from Python: ``import shardrec`` makes and opens stores and runs. It is the command ``shardrec`` too.

A project of a user may have a folder ``configs`` or a file ``train.py`` in the current folder or on ``PYTHONPATH``.
This module's name is ours alone, so it can put our folder in front before any other of ours is imported.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from configs.schema import RunConfig
    from data_pipeline.store.manifest import Manifest

ROOT = str(Path(__file__).resolve().parent)
PACKAGES = ("configs", "data_pipeline", "models", "train", "launch", "benchmarks")


class CommandFailed(RuntimeError):
    """A command that ran in processes of its own failed; it has printed why. ``exit_code`` is what it returned."""

    def __init__(self, command: Sequence[str], exit_code: int) -> None:
        super().__init__(f"shardrec {' '.join(command)} ended with exit code {exit_code}; its messages say why")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Store:
    """A prepared store, at one of its versions."""

    path: str
    manifest: "Manifest"
    """Counts, time span, features, files and fingerprint."""

    def items(self) -> "pa.Table":
        """A row for each item, in the order of the rows of the item table: ``raw_item``, ``count``, and more."""
        from data_pipeline.store.manifest import item_table

        return item_table(self.path, self.manifest, None)

    def histories(self) -> "Iterator[pa.Table]":
        """A row for each user, some thousand at a time: ``raw_user``, and lists of items and of times in ms.

        An ``item`` is a row of :meth:`items`. Raises ``DataError`` for a file that is damaged.
        """
        from data_pipeline.store.row_groups import RowGroups

        row_groups = RowGroups(self.path, self.manifest)
        return (row_groups.table(index)[0] for index in range(len(row_groups)))


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder; ``config`` is what it was trained with."""

    path: str
    config: "RunConfig"

    @property
    def summary(self) -> dict[str, Any]:
        """``summary.json``: quality, baselines, throughput, cost. Raises ``DataError`` before the run is finished."""
        from configs.atomic_files import read_json
        from configs.errors import DataError

        file = self._folder / "summary.json"
        if not file.is_file():
            raise DataError(f"run_dir={self.path} has no summary.json: the run is not finished; train it to its end")
        return read_json(file)

    def metrics(self) -> "pa.Table":
        """A row for each logged step and validation; what a row does not have is null."""
        import pyarrow as pa

        lines = (self._folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        return pa.table({name: [row.get(name) for row in rows] for name in columns})

    def item_vectors(self) -> "tuple[pa.Array, np.ndarray]":
        """The raw ids [V] of all items, and their vectors [V, D] in the model that the run ships: float32.

        Raises ``DataError`` where the run has no model yet.
        """
        from data_pipeline.store.manifest import item_table
        from data_pipeline.store.paths import path_of
        from train.checkpoint.stored_tensor import stored_tensor
        from train.run_dir.model_files import model_folder
        from train.run_dir.store_version import manifest_of_run

        manifest = manifest_of_run(self.config, path_of(self.config.run_dir))
        raw = item_table(self.config.data.store, manifest, ["raw_item"]).column("raw_item").combine_chunks()
        vectors = stored_tensor(model_folder(self.config), "model.tables.embeddings.item.weight")
        return raw, vectors.float().numpy()

    def recommend(
        self,
        *,
        users: "Sequence[Any] | None" = None,
        histories: "Mapping[Any, Sequence[Any]] | pa.Table | None" = None,
        **choices: Any,
    ) -> "pa.Table":
        """The best items as ``shardrec recommend`` writes them: a row for each user and rank, ids raw.

        ``users``: raw ids of users of the store, by default all. ``histories``: by an id of your own, raw ids of
        items, the oldest first; or a table of events in the log's columns, with one for each feature that the model
        reads. ``choices`` are the keys below ``recommend``, such as ``k=20``. Raises
        ``ConfigError`` and :class:`CommandFailed`.
        """
        import tempfile

        import pyarrow as pa
        import pyarrow.parquet as pq

        from configs.overrides import as_typed
        from launch.cli import run_verb

        columns = self.config.data.columns
        user = choices.get("user_column") or columns.user
        item = choices.get("item_column") or columns.item
        with tempfile.TemporaryDirectory(prefix="shardrec-") as folder:
            output = f"{folder}/recommendations.parquet"
            if users is not None:
                choices["users"] = f"{folder}/users.parquet"
                pq.write_table(pa.table({user: list(users)}), choices["users"])
            if histories is not None:
                choices["histories"] = f"{folder}/histories.parquet"
                if isinstance(histories, pa.Table):
                    table = histories
                else:
                    lists = {user: list(histories), item: [list(items) for items in histories.values()]}
                    table = pa.table(lists)
                pq.write_table(table, choices["histories"])
            keys = [f"recommend.{key}={as_typed(value)}" for key, value in (choices | {"output": output}).items()]
            command = ["recommend", f"run_dir={as_typed(self.path)}", *keys]
            if code := run_verb(command):
                raise CommandFailed(command, code)
            return pq.read_table(output)

    @property
    def _folder(self) -> Path:
        from configs.run_dir import READER, local_run_dir

        return local_run_dir(self.config, READER)


def load_config(overrides: Sequence[str]) -> "RunConfig":
    """The run that ``overrides`` (``"key=value"``, as on the command line) compose. Raises ``ConfigError``."""
    _ours_first()
    from configs.load import load_config as load

    return load(overrides)


def prepare(overrides: Sequence[str]) -> Store:
    """Make the store ``data.store`` of the log ``data.log``, as ``shardrec prepare`` does, in this process.

    Raises ``ConfigError`` and ``DataError``.
    """
    _ours_first()
    from configs.load import load_config as load
    from data_pipeline.prepare.__main__ import keys_given, make_synthetic_log
    from data_pipeline.prepare.prepare import prepare as make

    config = load(overrides).data
    make_synthetic_log(config)
    return Store(config.store, make(config, given=keys_given(overrides)))


def train(overrides: Sequence[str]) -> Run:
    """Train, or go on with, the run ``run_dir``, as ``shardrec train`` does: in processes of its own.

    Raises ``ConfigError`` for what is found before they start, and :class:`CommandFailed`.
    """
    _ours_first()
    from configs.command_time import set_began
    from configs.load import load_pinned
    from launch.clusters.local import train_locally

    set_began(time.time())
    config, words = load_pinned(list(overrides), machine=True)
    if code := train_locally(config, words):
        raise CommandFailed(["train", *overrides], code)
    return open_run(config.run_dir)


def open_run(path: str) -> Run:
    """The run in the folder or at the URL ``path``. Raises ``ConfigError`` where there is none."""
    _ours_first()
    from configs.overrides import as_typed
    from launch.saved_run import saved_run

    config, _ = saved_run([f"run_dir={as_typed(path)}"])
    return Run(config.run_dir, config)


def open_store(path: str, version: int = 0) -> Store:
    """The store at ``path``, by default its newest version. Raises ``DataError`` where there is none."""
    _ours_first()
    from data_pipeline.store.manifest import load_manifest

    return Store(path, load_manifest(path, version))


def _ours_first() -> None:
    if problem := put_first():
        raise ImportError(problem)


def put_first() -> str:
    """Put our folder first on the path; the message of what is in the way all the same, empty where nothing is.

    A module of the same name that was imported before, as by ``sitecustomize``, stays what it is.
    """
    sys.path[:] = [ROOT, *(entry for entry in sys.path if entry != ROOT)]
    for name in PACKAGES:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
        if module is not None and not Path(file).resolve().is_relative_to(ROOT):
            return f"{file} is imported as {name!r}, which is the name of a package of Shardrec; rename it"
    return ""


def main() -> int:
    """The command ``shardrec``."""
    if os.environ.pop("PYTHONINSPECT", ""):  # or each process ends with a traceback, a prompt and exit code 1
        os.execve(sys.executable, sys.orig_argv, os.environ)
    began = time.time()
    if problem := put_first():
        print(f"ConfigError: {problem}", file=sys.stderr)
        return 2
    from configs.command_time import set_began
    from launch.cli import main as run_verb

    set_began(began)

    return run_verb()


if __name__ == "__main__":
    sys.exit(main())
