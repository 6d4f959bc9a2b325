"""Hydra, without its global state: composes inside of a Hydra application, and in threads, and changes nothing there.

``hydra.initialize`` may be called once in a process. So we make the loader that it makes, with our own schemas.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from configs.choices import CHOICES, CONFIG_DIR
from configs.errors import ConfigError
from configs.paths import checked_path
from configs.schema import EncoderConfig, LossConfig, RunConfig
from configs.schema.cluster import LaunchConfig
from configs.schema.serve import ServerConfig

_LOCK = threading.Lock()


class _OurSchemas(ConfigStore):
    """Our dataclasses by group and name, out of the way of those that an application has stored."""


def composed(name: str, overrides: list[str], config_dir: str = "") -> DictConfig:
    """``configs/NAME.yaml`` with ``overrides`` in Hydra's own spelling; interpolations are not resolved yet.

    Files of ``config_dir`` come before ours. Raises Hydra's and OmegaConf's errors, and :class:`ConfigError` for a
    ``config_dir`` that is no folder.
    """
    with _LOCK:  # Hydra's parser and plugins keep state of their own while they start
        loader = ConfigLoaderImpl(_search_path(config_dir))
        schema_source: Any = loader.repository.get_schema_source()
        schema_source.store = _schemas()
        words = ["hydra.job.name=shardrec", *overrides]
        config = loader.load_configuration(name, words, run_mode=RunMode.RUN, from_shell=False)
    with open_dict(config):
        del config["hydra"]
    return config


def _search_path(config_dir: str) -> ConfigSearchPathImpl:
    Plugins.instance()  # registers the kinds of sources
    if not OmegaConf.has_resolver("now"):
        setup_globals()  # ${now:...}; an application of Hydra has it already
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    if config_dir:
        folder = Path(checked_path("config_dir", config_dir)).absolute()
        if not folder.is_dir():
            raise ConfigError(f"config_dir={config_dir} is no folder; name the one that holds your YAML files")
        path.append("yours", f"file://{folder}")
    path.append("main", f"file://{CONFIG_DIR}")
    path.append("schema", "structured://")
    return path


@cache
def _schemas() -> ConfigStore:
    store = _OurSchemas()
    store.repo["hydra"] = ConfigStore.instance().repo["hydra"]  # Hydra's own, which every composition starts from
    run: Any = OmegaConf.structured(RunConfig)
    run.model, run.loss = EncoderConfig(), LossConfig()  # variants merge over their base, not over one another
    store.store(name="run_schema", node=run)
    store.store(name="launch_schema", node=OmegaConf.structured(LaunchConfig))
    store.store(name="serve_schema", node=OmegaConf.structured(ServerConfig))
    for group, choices in CHOICES.items():
        for name, choice in choices.items():
            store.store(group=group, name=name, node=choice)
    return store
