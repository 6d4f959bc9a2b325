"""The folder of a run: what it was started with, so that the same folder again resumes and another run is refused."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from configs.atomic_files import (
    parse_json_with_sum,
    parse_text_with_sum,
    write_atomically,
    write_json,
    write_text,
)
from configs.errors import ConfigError
from configs.flatten import flat, is_among
from configs.load import resolved_yaml, variants_of
from configs.overrides import as_typed
from configs.renamed_keys import with_new_names
from configs.run_dir import describe_run_dir, local_run_dir
from configs.saved_run import CONFIG, compose_saved
from configs.schema import RunConfig
from data_pipeline.store.manifest import DIGESTS
from data_pipeline.store.paths import AnyPath, path_of
from train.run_dir.environment import record_session

MAY_CHANGE = (
    "run_dir",
    "config_dir",
    "scratch_dir",
    "num_epochs",
    "num_steps",
    "log_every_steps",
    "hardware",
    "sharding",
    "checkpoint",
    "nonfinite",
    "train",
    "began_with",
    "recommend",
    "follow",
    "tracking",
    "profile",
    "data.log",
    "data.store",
    "data.version",
    "data.memory_gib",
    "data.spill_dir",
    "data.engine",
    "data.spark_master",
    "data.prefetch_batches",
    "data.prefetch_mib",
    "evaluation.batch_size",
    "evaluation.num_bootstrap_samples",
    "evaluation.trained_baselines",
    "evaluation.knn_neighbours",
    "evaluation.ease_l2",
    "evaluation.patience",
    "evaluation.groups",
    "evaluation.user_file",
    "evaluation.user_column",
    "evaluation.item_file",
    "evaluation.item_column",
    "evaluation.lists",
    "evaluation.diversity_by",
    "export",
)
"""Keys that may change when a run resumes, since they do not change which batches it trains on.

``num_epochs`` and ``num_steps`` stretch the schedule of the rates anew, from the step that is reached; a larger
``evaluation.patience`` lets a run go on that stopped by it. A final fit (``train``) comes after all of that."""
OF_PREPARE_ALONE = (
    "data.columns",
    "data.source",
    "data.event_types",
    "data.deduplicate",
    "data.min_user_events",
    "data.min_item_events",
    "data.max_bad_fraction",
    "data.items",
    "data.items_column",
    "data.item_features",
    "data.append",
    "data.synthetic",
)
"""Keys that say how a log becomes a store. They may differ too when a run resumes on a store of the same digests,
since those say what the store holds; only where the digests differ do the keys tell why."""
MAY_DIFFER_IN_EVALUATION = (*MAY_CHANGE, "evaluation", "seed")
"""Keys that may differ from the run's when its model is ranked: they change neither the model nor its training data.

The seed is that of the bootstrap alone; ``evaluation.leave_out_seen`` asks another question: the result says so."""
_OF_THE_SPLIT = (
    "data.split",
    "data.global_time_valid",
    "data.global_time_test",
    "data.global_time_valid_fraction",
    "data.global_time_test_fraction",
    "data.cold_items_fraction",
    "data.cold_items_seed",
)
IDENTITY = "identity.json"
VERSION = "data.version"
"""The key under which the identity keeps which version of the store the run reads."""
Digests = Mapping[str, str]
"""Of the data, by the keys of :data:`DIGESTS`."""
BEGAN_WITH = "began_with"
"""Begins the keys of the identity that say which checkpoint a warm start took."""
OVERRIDES = "overrides.txt"
STOPPED = "STOPPED"
"""Is there when the last session ended by a stop signal, with everything saved; holds the step."""


def open_run_folder(config: RunConfig, overrides: Sequence[str], data: Digests, world_size: int = 1) -> Path:
    """Make or re-open the local folder of ``run_dir`` for a session of ``world_size`` ranks; rank 0 only.

    ``config`` names the version of the store that the run reads, and ``data`` its digests.

    Raises :class:`ConfigError` for a folder of another run.
    """
    folder = local_run_dir(config)
    identity = identity_of(config, data) | {VERSION: config.data.version}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_other_run(folder, config, data)
        if (folder / IDENTITY).is_file():
            before = saved_identity(folder, config.run_dir)
            identity |= {key: value for key, value in before.items() if is_among(key, (BEGAN_WITH,))}
        (folder / STOPPED).unlink(missing_ok=True)
        write_json(folder / IDENTITY, identity)
        write_text(folder / CONFIG, resolved_yaml(config))
        write_text(folder / OVERRIDES, "".join(f"{each}\n" for each in overrides))
        record_session(folder, config.hardware, world_size)
    except OSError as error:
        raise ConfigError(
            f"{describe_run_dir(config)} cannot be written: {error.strerror}; choose another"
        ) from error
    return folder


def record_beginning(folder: Path, model: Mapping[str, Any]) -> None:
    """Add to the identity in ``folder`` which model of another run this one began with; rank 0 only."""
    identity = saved_identity(folder, str(folder))
    write_json(folder / IDENTITY, identity | {f"{BEGAN_WITH}.{key}": value for key, value in model.items()})


def identity_of(config: RunConfig, data: Digests, may_differ: Collection[str] = MAY_CHANGE) -> dict[str, Any]:
    """What makes a run this one: its variants, every key that is not among ``may_differ``, and its data."""
    keys = {**variants_of(config), **dict(flat(asdict(config))), **data}
    return {key: value for key, value in keys.items() if not is_among(key, may_differ)}


def refuse_other_run(folder: AnyPath, config: RunConfig, data: Digests) -> None:
    """Raise :class:`ConfigError`, which names a key, where ``folder`` holds another run than ``config`` on this data.

    Changes nothing. :class:`DataError` where the identity cannot be read.
    """
    if (folder / IDENTITY).is_file():
        may_differ: Collection[str] = MAY_CHANGE
        if data and is_same_data(saved_identity(folder, config.run_dir), data):
            may_differ = (*MAY_CHANGE, *OF_PREPARE_ALONE)
        key, saved, own = _difference(folder, config, data, may_differ)
        if key:
            raise ConfigError(
                f"run_dir={config.run_dir} is another run: there {key}={saved}, here {own}; "
                f"choose another run_dir, or the same {key} to resume"
            )


def refuse_other_evaluation(config: RunConfig, data: Digests, *, is_of_other_events: bool = False) -> None:
    """Raise :class:`ConfigError`, which names a key, where ``config`` is not the run in its ``run_dir``.

    Another split would rank events that the model was trained on; another width would not fit its tensors.
    ``is_of_other_events``: another store is meant, and may be split otherwise; whoever ranks it looks which of its
    events the model was trained on.
    """
    may_differ: Collection[str] = MAY_DIFFER_IN_EVALUATION
    if is_of_other_events:
        may_differ = (*may_differ, *OF_PREPARE_ALONE, *_OF_THE_SPLIT)
    key, saved, own = _difference(path_of(config.run_dir), config, data, may_differ)
    if key == "data.fingerprint":
        raise ConfigError(
            f"data.store={config.data.store} holds other data than run_dir={config.run_dir} learnt from; its "
            f"manifest's fingerprint is {own}, the run's is {saved}"
        )
    if key:
        raise ConfigError(
            f"run_dir={config.run_dir} was trained with {key}={saved}, so that its model cannot be ranked with "
            f"{key}={own}; leave {key} out, or train another run with it"
        )


def _difference(
    folder: AnyPath, config: RunConfig, data: Digests, may_differ: Collection[str]
) -> tuple[str, Any, Any]:
    """The first key that differs, the value that is saved and that of ``config``; an empty key where none does.

    Digests that one of the two does not know, as runs and stores of before, are no difference. Keys that did not
    exist when the run was started count as left at their default.
    """
    saved = {**_defaults_of(config), **saved_identity(folder, config.run_dir)}
    may_differ = (*may_differ, *(key for key in DIGESTS if key not in data or key not in saved))
    own = identity_of(config, data, may_differ)
    for key in sorted(saved.keys() | own.keys(), key=lambda key: (key.count("."), key)):  # a variant before its keys
        if not is_among(key, may_differ) and saved.get(key) != own.get(key):
            return key, saved.get(key), own.get(key)
    return "", None, None


def is_same_data(saved: Mapping[str, Any], data: Digests) -> bool:
    """Whether every digest that the run and the store both know is the same, and the fingerprint is one of them."""
    both = saved.keys() & data.keys() & set(DIGESTS)
    return DIGESTS[0] in both and all(saved[key] == data[key] for key in both)


def _defaults_of(config: RunConfig) -> dict[str, Any]:
    """The default of every key of the variants of ``config``."""
    groups: dict[str, Any] = {name: getattr(config, name) for name in (field.name for field in fields(config))}
    chosen: dict[str, Any] = {name: type(group) for name, group in groups.items() if is_dataclass(group)}
    variants: dict[str, Any] = {name: variant() for name, variant in chosen.items()}
    return dict(flat(asdict(RunConfig(**variants))))


def mark_stopped(folder: Path, step: int) -> None:
    """Leave the mark that launchers read before they start a run again; one rank a folder."""
    write_atomically(folder / STOPPED, f"{step}\n")


def load_run_config(run_dir: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The run in ``run_dir`` as its ``config.yaml`` says, with ``overrides`` on top: for verbs that use a run.

    Raises :class:`ConfigError` where there is no run, and as :func:`compose_saved` does.
    """
    path = path_of(run_dir) / CONFIG
    return compose_saved(saved_yaml(run_dir), path, [*overrides, f"run_dir={as_typed(run_dir)}"])


def saved_yaml(run_dir: str) -> str:
    """The ``config.yaml`` of the run in ``run_dir``; :class:`ConfigError` where there is no run."""
    path = path_of(run_dir) / CONFIG
    if not path.is_file():
        raise ConfigError(f"run_dir={run_dir} holds no run; train it first")
    return parse_text_with_sum(path.read_bytes(), path)


def saved_identity(folder: AnyPath, run_dir: str) -> dict[str, Any]:
    """The identity of the run in ``folder``, by the keys of today; :class:`ConfigError` where there is no run."""
    path = folder / IDENTITY
    if not path.is_file():
        raise ConfigError(f"run_dir={run_dir} holds no run; train it first")
    return with_new_names(parse_json_with_sum(path.read_bytes(), path))
