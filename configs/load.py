"""Composes one typed run, and the cluster it starts on, out of ``configs/*.yaml`` and ``key=value`` overrides."""

import dataclasses
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from configs.cluster_schema import ClusterConfig, KubernetesConfig, LocalConfig, SlurmConfig, TorchrunConfig
from configs.errors import ConfigError
from configs.schema import (
    BCEConfig,
    DataConfig,
    FullSoftmaxConfig,
    GBCEConfig,
    HardwareConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    SampledSoftmaxConfig,
    SASRecConfig,
    ShardingConfig,
)

CONFIG_DIR = Path(__file__).resolve().parent
_NEW_KEYS = "data.features."
"""Below it a user gives names of his own."""

_GROUP_SCHEMAS: list[tuple[str, str, type]] = [
    ("model", "schema_sasrec", SASRecConfig),
    ("data", "schema_data", DataConfig),
    ("loss", "schema_full_softmax", FullSoftmaxConfig),
    ("loss", "schema_sampled_softmax", SampledSoftmaxConfig),
    ("loss", "schema_bce", BCEConfig),
    ("loss", "schema_gbce", GBCEConfig),
    ("optimizer", "schema_optimizer", OptimizerConfig),
    ("sharding", "schema_sharding", ShardingConfig),
    ("hardware", "schema_hardware", HardwareConfig),
    ("cluster", "schema_local", LocalConfig),
    ("cluster", "schema_torchrun", TorchrunConfig),
    ("cluster", "schema_slurm", SlurmConfig),
    ("cluster", "schema_kubernetes", KubernetesConfig),
]


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
    config = _composed("run", _with_enum_names([_plain_key(override) for override in overrides]))
    assert isinstance(config, RunConfig), "run.yaml starts from run_schema"
    return config


def load_cluster(overrides: Sequence[str] = ()) -> ClusterConfig:
    """Compose ``configs/launch.yaml`` with ``overrides`` such as ``["cluster=slurm", "cluster.nodes=2"]``. Pure.

    Raises :class:`ConfigError` as :func:`load_config` does.
    """
    launch = _composed("launch", overrides)
    assert isinstance(launch, _Launch), "launch.yaml starts from launch_schema"
    return launch.cluster


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the cluster (``cluster=...``, ``cluster.key=...``), and those of the run."""
    of_cluster = [each for each in overrides if each.startswith(("cluster=", "cluster."))]
    return of_cluster, [each for each in overrides if each not in of_cluster]


def _composed(name: str, overrides: Sequence[str]) -> Any:
    _refuse_new_keys(overrides)
    new_keys = [each for each in overrides if each.startswith(_NEW_KEYS)]
    _store_schemas()
    try:
        with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
            config = compose(config_name=name, overrides=[each for each in overrides if each not in new_keys])
            with open_dict(config):  # Hydra cannot add an entry to a dict of dataclasses
                return OmegaConf.to_object(OmegaConf.merge(config, OmegaConf.from_dotlist(new_keys)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error


def resolved_yaml(config: RunConfig) -> str:
    """Every key of ``config`` with its value as YAML, in the schema's order; choices as a user types them."""
    return OmegaConf.to_yaml(OmegaConf.create(_plain(dataclasses.asdict(config))))


def _refuse_new_keys(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.startswith(("+", "~", "hydra.", "hydra/")):
            raise ConfigError(f"{override}: every key of a run exists already; write key=value without + or ~")


def _plain_key(override: str) -> str:
    """``+data.features.price.type=number`` -> without the plus, which is allowed where a key is new."""
    key = override.lstrip("+")
    return key if key.startswith(_NEW_KEYS) else override


def _store_schemas() -> None:
    store = ConfigStore.instance()
    run = OmegaConf.structured(RunConfig)
    run.loss = LossConfig()  # a variant cannot be merged over another one, only over their base
    store.store(name="run_schema", node=run)
    store.store(name="launch_schema", node=OmegaConf.structured(_Launch))
    for group, name, schema in _GROUP_SCHEMAS:
        store.store(group=group, name=name, node=schema)


def _with_enum_names(overrides: Sequence[str]) -> list[str]:
    """``model.user_input=add`` -> ``model.user_input=ADD``: OmegaConf knows the members by name only."""
    enums = _enum_keys(RunConfig)
    named = []
    for override in overrides:
        key, _, value = override.partition("=")
        general = re.sub(rf"^{re.escape(_NEW_KEYS)}[^.]*", f"{_NEW_KEYS}*", key)
        members = {str(member.value): member.name for member in enums.get(general, ())}
        if members and value not in members and value not in members.values():
            raise ConfigError(f"{key}={value} is unknown; set it to one of {', '.join(members)}")
        named.append(f"{key}={members.get(value, value)}" if members else override)
    return named


def _enum_keys(schema: type, prefix: str = "") -> dict[str, type[Enum]]:
    """The keys that hold a choice; ``*`` stands for the names in a dict."""
    found: dict[str, type[Enum]] = {}
    for name, hint in get_type_hints(schema).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            for variant in (hint, *hint.__subclasses__()):
                found |= _enum_keys(variant, f"{prefix}{name}.")
        elif get_origin(hint) is dict:
            found |= _enum_keys(get_args(hint)[1], f"{prefix}{name}.*.")
        elif isinstance(hint, type) and issubclass(hint, Enum):
            found[prefix + name] = hint
    return found


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(entry) for key, entry in value.items()}
        case list():
            return [_plain(entry) for entry in value]
        case Enum():
            return value.value
        case _:
            return value


def _one_line(error: Exception) -> str:
    """Hydra's message without its line breaks and its Python types; its cause says which value was wrong."""
    text = str(error)
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text = f"{text} {error.__cause__}"
    text = re.sub(r"Config search path:.*|See https://hydra.cc\S*.*", "", text, flags=re.DOTALL)
    text = re.sub(r"To append to your config use \S+|(reference|object)_type=\S+|\bschema_\w+", "", text)
    return re.sub(r"\s+", " ", text).strip()
