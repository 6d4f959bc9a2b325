"""A key is described where it is defined, and what is made of that is not stale."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.choices import CHOICES, CONFIG_DIR, names_of
from configs.load import load_cluster, load_config
from configs.reference import cluster_keys, run_keys, server_keys, undocumented
from configs.schema import RunConfig
from configs.schema.features import FeatureConfig
from configs.schema.serve import ServerConfig
from launch.reference_page import reference_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
VARIANTS = [
    variant if isinstance(variant, type) else type(variant)
    for group in CHOICES.values()
    for variant in group.values()
]


def groups_of(schema: Any) -> list[Any]:
    """``schema`` and every group of keys below it."""
    inner = [hint for hint in schema.__annotations__.values() if dataclasses.is_dataclass(hint)]
    return [schema, *(found for each in inner for found in groups_of(each))]


SCHEMAS = {*groups_of(RunConfig), *groups_of(ServerConfig), FeatureConfig, *VARIANTS}


@pytest.mark.parametrize("schema", sorted(SCHEMAS, key=str))
def test_every_key_has_a_sentence_under_it(schema: Any) -> None:
    assert not undocumented(schema)


def test_every_sentence_is_one_line_that_ends() -> None:
    for key in [*run_keys(), *cluster_keys(), *server_keys()]:
        assert key.doc.endswith("."), key.name


def test_the_page_of_all_keys_is_as_the_schema_says() -> None:
    """After a change of the schema: ``shardrec config --reference > docs/configuration.md``."""
    assert PAGE.read_text() == reference_page()


def test_every_key_of_a_run_is_listed() -> None:
    listed = {key.name for key in run_keys()}
    assert set(keys_of(load_config())) <= listed


def keys_of(config: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        yield prefix + field.name
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            yield from keys_of(value, f"{prefix}{field.name}.")


def test_the_first_name_of_a_group_is_its_default() -> None:
    composed = [*yaml_defaults("run"), *yaml_defaults("launch")]
    assert {group: names_of(group)[0] for group in CHOICES} == dict(composed)


def yaml_defaults(name: str) -> list[tuple[str, str]]:
    """The groups of ``configs/NAME.yaml`` with the names that they have by default."""
    defaults = yaml.safe_load((CONFIG_DIR / f"{name}.yaml").read_text())["defaults"]
    return [pair for each in defaults if isinstance(each, dict) for pair in each.items() if pair[1]]


@pytest.mark.parametrize("group", [group for group in CHOICES if group != "cluster"])
def test_every_name_of_a_group_composes(group: str) -> None:
    for name in names_of(group):
        load_config([f"{group}={name}"])


def test_every_kind_of_cluster_composes() -> None:
    needed = {
        "torchrun": ["cluster.endpoint=a:1"],
        "kubernetes": ["cluster.image=a", "cluster.volume_claim=b"],
    }
    for name in names_of("cluster"):
        assert load_cluster([f"cluster={name}", *needed.get(name, [])]).name == name


def test_no_yaml_file_only_names_a_dataclass() -> None:
    for file in CONFIG_DIR.glob("*/*.yaml"):
        assert set(yaml.safe_load(file.read_text())) - {"defaults"}, file


def test_a_key_of_some_choices_says_which() -> None:
    needs = {key.name: key.needs for key in run_keys()}
    assert needs["loss.calibration"] == "loss=gbce"
    assert needs["loss.num_negatives"] == "loss=sampled_softmax|bce|gbce"
    assert needs["seed"] == ""
