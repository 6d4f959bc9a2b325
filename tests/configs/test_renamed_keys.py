"""A key of an earlier version is refused wherever it is written, with its name of today."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from configs.errors import ConfigError
from configs.load import load_config, resolved_yaml
from configs.overrides import types_of_key
from configs.renamed_keys import RENAMED
from configs.saved_run import compose_saved
from configs.schema import RunConfig

KEYS = [key for key in RENAMED if "." in key]


def test_every_new_name_is_a_key_and_no_old_one_is():
    for key, new in RENAMED.items():
        assert types_of_key(new.key, RunConfig)
        with pytest.raises(ConfigError, match=f"^unknown key {re.escape(key)}; "):
            types_of_key(key, RunConfig)


@pytest.mark.parametrize("key", KEYS)
def test_an_old_key_is_refused_with_its_new_name_when_it_is_typed(key: str):
    with pytest.raises(ConfigError, match=f"unknown key {key}; it is called {RENAMED[key].key} now"):
        load_config([f"{key}=8"])


@pytest.mark.parametrize("key", KEYS)
def test_an_old_key_is_refused_with_its_new_name_in_ones_own_yaml(tmp_path: Path, key: str):
    (tmp_path / "experiment").mkdir()
    nested = OmegaConf.create()
    OmegaConf.update(nested, key, 8)
    yaml = f"# @package _global_\n{OmegaConf.to_yaml(nested)}"
    (tmp_path / "experiment" / "mine.yaml").write_text(yaml)
    group, _, name = RENAMED[key].key.partition(".")
    with pytest.raises(ConfigError, match=f"unknown key .*{group}.*{name if key.startswith('data.') else ''} now"):
        load_config([f"config_dir={tmp_path}", "experiment=mine"])


@pytest.mark.parametrize("key", KEYS)
def test_an_old_key_is_refused_with_its_new_name_in_a_saved_run(key: str):
    saved = OmegaConf.create(resolved_yaml(load_config()))
    OmegaConf.update(saved, key, 8, force_add=True)
    with pytest.raises(ConfigError, match=f"R: unknown key {key}; it is called {RENAMED[key].key} now"):
        compose_saved(OmegaConf.to_yaml(saved), "R")
