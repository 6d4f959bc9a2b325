"""Composes one typed run, and the cluster it starts on, out of ``configs/*.yaml`` and ``key=value`` overrides."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, TypeVar

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from configs.choices import CHOICES, names_of
from configs.compose import composed
from configs.errors import ConfigError
from configs.overrides import AUTO_KEYS, NEW_KEYS, as_typed, key_of, literal, read_overrides, unknown_key
from configs.schema import RunConfig
from configs.schema.cluster import ClusterConfig, LaunchConfig
from configs.schema.serve import ServerConfig

Schema = TypeVar("Schema")
VARIANTS = "variants"
"""The key of a saved run that says of which variants its groups are."""
VARIANT_GROUPS = ("model", "loss", "optimizer")


def load_config(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose ``configs/run.yaml`` with ``overrides`` such as ``["loss=bce", "num_epochs=50"]``.

    ``data.features.NAME.key=value`` makes the feature; every other key is there already. Uses and changes nothing of
    a Hydra application that calls it; may be called in threads.

    Pure: the same overrides on the same machine give the same config and nothing is written.
    Raises :class:`ConfigError` for an unknown key or group, a wrong type and a value out of bounds.
    """
    return _typed(_merged("run", RunConfig, overrides), RunConfig, overrides)


def load_cluster(overrides: Sequence[str] = ()) -> ClusterConfig:
    """Compose ``configs/launch.yaml`` with ``overrides`` such as ``["cluster=slurm", "cluster.nodes=2"]``. Pure.

    Raises :class:`ConfigError` as :func:`load_config` does.
    """
    return _typed(_merged("launch", LaunchConfig, overrides), LaunchConfig, overrides).cluster


def load_server(overrides: Sequence[str] = ()) -> ServerConfig:
    """Compose ``configs/serve.yaml`` with ``overrides`` such as ``["export=runs/a/export", "serve.port=80"]``. Pure.

    Raises :class:`ConfigError` as :func:`load_config` does.
    """
    return _typed(_merged("serve", ServerConfig, overrides), ServerConfig, overrides)


def load_pinned(overrides: Sequence[str], *, machine: bool = False) -> tuple[RunConfig, list[str]]:
    """The config of ``overrides``, and the overrides with each interpolation replaced by its value; with ``machine``
    also what was left to this machine.

    Every process of a run composes again, and ``${now:%H-%M}``, ``${oc.env:TMPDIR}`` or the cores that a rank is
    bound to may be others there: whoever starts processes hands these on.
    """
    merged = _merged("run", RunConfig, overrides)
    config = _typed(merged, RunConfig, overrides)
    keys = [*_interpolated(merged, ""), *(_left_to_the_machine(merged) if machine else [])]
    kept = [each for each in overrides if key_of(each) not in keys]
    return config, [*kept, *(f"{key}={as_typed(_value(config, key))}" for key in keys)]


def left_to_the_machine(overrides: Sequence[str]) -> list[str]:
    """The keys of ``overrides``' run whose values are the machine's, such as ``hardware.num_ranks``."""
    return _left_to_the_machine(_merged("run", RunConfig, overrides))


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the cluster (``cluster=...``, ``cluster.key=...``), and those of the run; ``config_dir`` is both's."""
    of_cluster = [each for each in overrides if each.startswith(("cluster=", "cluster."))]
    shared = [each for each in overrides if each.startswith("config_dir=")]
    return [*shared, *of_cluster], [each for each in overrides if each not in of_cluster]


def resolved_yaml(config: RunConfig) -> str:
    """Every key of ``config`` with its value as YAML, in the schema's order; choices as a user types them.

    First, under ``variants``, which dataclass the keys of each group are of: ``loss: sampled_softmax``.
    """
    return OmegaConf.to_yaml(
        OmegaConf.create({VARIANTS: variants_of(config), **_plain(dataclasses.asdict(config))}), resolve=True
    )


def variants_of(config: RunConfig) -> dict[str, str]:
    """The name of the variant of each group that has, or will have, several: ``{"loss": "sampled_softmax", ...}``."""
    groups = {group: type(getattr(config, group)) for group in VARIANT_GROUPS}
    return {
        group: next(name for name, choice in CHOICES[group].items() if choice is kind)
        for group, kind in groups.items()
    }


def _merged(name: str, schema: type, overrides: Sequence[str]) -> DictConfig:
    """The composition before interpolations are resolved."""
    parsed = read_overrides(overrides, schema)
    new_keys = [each for each in parsed if each.key_or_group.startswith(NEW_KEYS)]
    words = [str(each.input_line) for each in parsed if each not in new_keys]
    try:
        config = composed(name, words, _config_dir(parsed))
        added = OmegaConf.create()
        for each in new_keys:  # Hydra cannot add an entry to a dict of dataclasses
            OmegaConf.update(added, each.key_or_group, each.value())
        with open_dict(config):
            merged = OmegaConf.merge(config, added)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _explained(error, schema, overrides) from error
    except RecursionError as error:
        nested = max(overrides, key=lambda each: each.count("[") + each.count("{"), default="")
        raise ConfigError(f"{nested[:100]}...: has too many brackets inside of each other") from error
    assert isinstance(merged, DictConfig), "merged into a DictConfig"
    return merged


def _config_dir(parsed: Sequence[Override]) -> str:
    """The last one typed; it is needed before anything is composed, so that it may name the environment alone."""
    typed = [each.value() for each in parsed if each.key_or_group == "config_dir"]
    return str(OmegaConf.create({"config_dir": typed[-1]}).config_dir) if typed else ""


def _typed(merged: DictConfig, schema: type[Schema], overrides: Sequence[str]) -> Schema:
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise _explained(error, schema, overrides) from error
    except RecursionError as error:
        raise ConfigError("keys that refer to each other with ${...} in a circle have no value") from error
    if not isinstance(config, schema):
        raise ConfigError(
            "run.yaml, launch.yaml and serve.yaml of your config_dir must start as ours do: see configs/run.yaml"
        )
    return config


def _interpolated(node: Any, prefix: str) -> Iterator[str]:
    """The keys below ``node`` whose values hold ``${...}``; a list is one value."""
    if isinstance(node, DictConfig):
        for name in map(str, node):
            if OmegaConf.is_interpolation(node, name):
                yield f"{prefix}{name}"
            else:
                yield from _interpolated(node[name], f"{prefix}{name}.")
    if isinstance(node, ListConfig) and any(OmegaConf.is_interpolation(node, place) for place in range(len(node))):
        yield prefix.removesuffix(".")


def _left_to_the_machine(merged: DictConfig) -> list[str]:
    return [key for key in ("hardware.device", *AUTO_KEYS) if OmegaConf.select(merged, key) in (0, "auto")]


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


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


def _explained(error: Exception, schema: type, overrides: Sequence[str]) -> ConfigError:
    """One line of what Hydra says in many, which begins with the override that is at fault where that is known."""
    text = _one_line(error)
    if unknown := re.search(r"Key '\w+' not in '\w+' full_key: (\S+)", text):
        return unknown_key(unknown[1], schema)
    if missing := re.search(r"Could not find '([a-z_]+)/(.+?)'", text):
        group, name = missing.groups()
        own = "; a YAML file of your own is found with --config-dir=FOLDER, in FOLDER/" + group
        return ConfigError(f"{group}={name}: there is no {group}/{name}; use {', '.join(names_of(group))}{own}")
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    typed = [each for each in overrides if key and key_of(each) == key]
    text = re.sub(r" ?full_key: \S+", "", text) if typed else text
    return ConfigError(f"{typed[-1]}: {text}" if typed else text)


def _one_line(error: Exception) -> str:
    """Hydra's message without its line breaks and its Python types; its cause says which value was wrong."""
    text = str(error)
    if error.__cause__ is not None and str(error.__cause__) not in text:
        text = f"{text} {error.__cause__}"
    text = re.sub(r"Config search path:.*|See https://hydra.cc\S*.*", "", text, flags=re.DOTALL)
    text = re.sub(r"To append to your config use \S+|(reference|object)_type=\S+", "", text)
    return re.sub(r"\s+", " ", text).strip()
