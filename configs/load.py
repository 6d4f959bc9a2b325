"""Composes one typed run, and the cluster it starts on, out of ``configs/*.yaml`` and ``key=value`` overrides."""

import dataclasses
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from configs.choices import CHOICES, CONFIG_DIR
from configs.errors import ConfigError
from configs.overrides import NEW_KEYS, literal, read_overrides, unknown_key
from configs.schema import LossConfig, RunConfig
from configs.schema.cluster import ClusterConfig


@dataclasses.dataclass
class _Launch:
    """What ``configs/launch.yaml`` composes."""

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)


def load_config(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose ``configs/run.yaml`` with ``overrides`` such as ``["loss=bce", "num_epochs=50"]``.

    ``data.features.NAME.key=value`` makes the feature; every other key is there already.

    Pure: the same overrides give the same config and nothing is written.
    Raises :class:`ConfigError` for an unknown key or group, a wrong type and a value out of bounds.
    """
    config = _composed("run", RunConfig, overrides)
    assert isinstance(config, RunConfig), "run.yaml starts from run_schema"
    return config


def load_cluster(overrides: Sequence[str] = ()) -> ClusterConfig:
    """Compose ``configs/launch.yaml`` with ``overrides`` such as ``["cluster=slurm", "cluster.nodes=2"]``. Pure.

    Raises :class:`ConfigError` as :func:`load_config` does.
    """
    launch = _composed("launch", _Launch, overrides)
    assert isinstance(launch, _Launch), "launch.yaml starts from launch_schema"
    return launch.cluster


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the cluster (``cluster=...``, ``cluster.key=...``), and those of the run."""
    of_cluster = [each for each in overrides if each.startswith(("cluster=", "cluster."))]
    return of_cluster, [each for each in overrides if each not in of_cluster]


def _composed(name: str, schema: type, overrides: Sequence[str]) -> Any:
    parsed = read_overrides(overrides, schema)
    new_keys = [each for each in parsed if each.key_or_group.startswith(NEW_KEYS)]
    _store_schemas()
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
            config = compose(name, overrides=[str(each.input_line) for each in parsed if each not in new_keys])
        added = OmegaConf.create()
        for each in new_keys:  # Hydra cannot add an entry to a dict of dataclasses
            OmegaConf.update(added, each.key_or_group, each.value())
        with open_dict(config):
            return OmegaConf.to_object(OmegaConf.merge(config, added))
    except (HydraException, OmegaConfBaseException) as error:
        text = _one_line(error)
        if unknown := re.search(r"Key '\w+' not in '\w+' full_key: (\S+)", text):
            raise unknown_key(unknown[1], schema) from error
        raise ConfigError(text) from error


def resolved_yaml(config: RunConfig) -> str:
    """Every key of ``config`` with its value as YAML, in the schema's order; choices as a user types them."""
    return OmegaConf.to_yaml(OmegaConf.create(_plain(dataclasses.asdict(config))), resolve=True)


def _store_schemas() -> None:
    store = ConfigStore.instance()
    run = OmegaConf.structured(RunConfig)
    run.loss = LossConfig()  # a variant cannot be merged over another one, only over their base
    store.store(name="run_schema", node=run)
    store.store(name="launch_schema", node=OmegaConf.structured(_Launch))
    for group, choices in CHOICES.items():
        for name, choice in choices.items():
            store.store(group=group, name=name, node=choice)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(entry) for key, entry in value.items()}
        case list():
            return [_plain(entry) for entry in value]
        case Enum():
            return value.value
        case str():
            return literal(value)
        case _:
            return value


def _one_line(error: Exception) -> str:
    """Hydra's message without its line breaks and its Python types; its cause says which value was wrong."""
    text = str(error)
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text = f"{text} {error.__cause__}"
    text = re.sub(r"Config search path:.*|See https://hydra.cc\S*.*", "", text, flags=re.DOTALL)
    text = re.sub(r"To append to your config use \S+|(reference|object)_type=\S+", "", text)
    return re.sub(r"\s+", " ", text).strip()
