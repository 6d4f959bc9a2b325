"""No value of any key gives a traceback when a run is composed: it composes, or one line names the key."""

import itertools

import pytest

from configs.errors import ConfigError
from configs.load import load_cluster, load_pinned, load_server
from configs.reference import Key
from nasty import all_keys, values_of

NEEDED = {
    "loss=full_softmax": ["loss=full_softmax"],
    "loss=sampled_softmax": ["loss=sampled_softmax"],
    "loss=gbce": ["loss=gbce"],
    "loss=sampled_softmax|bce|gbce": ["loss=bce"],
    "cluster=torchrun": ["cluster=torchrun", "cluster.endpoint=a:1"],
    "cluster=slurm": ["cluster=slurm"],
    "cluster=kubernetes": ["cluster=kubernetes", "cluster.image=a", "cluster.volume_claim=b"],
    "cluster=slurm|kubernetes": ["cluster=slurm"],
}
"""Overrides with which the keys of a variant are there."""


def composes(key: Key, value: str) -> str:
    """Nothing, or the line that refuses ``value``; any other error is a fault."""
    name = key.name.replace("NAME", "price")
    words = [*NEEDED.get(key.needs, []), f"{name}={value}"]
    try:
        if name == "cluster" or name.startswith("cluster."):
            load_cluster(words)
        elif (name == "export" and not key.is_group) or name == "serve" or name.startswith("serve."):
            load_server(words)
        else:
            load_pinned(words, machine=True)
    except ConfigError as error:
        return str(error)
    return ""


def check(key: Key, value: str) -> None:
    told = composes(key, value)
    if told:
        parts = key.name.replace("NAME", "price").split(".")
        assert any(part in told for part in parts[-1:]), (
            f"{key.name}={value[:50]!r} is refused without its name: {told}"
        )
        assert len(told) < 1000


@pytest.mark.parametrize("key", all_keys(), ids=lambda key: f"{key.needs}-{key.name}")
def test_a_nasty_value_composes_or_is_refused_by_its_key(key: Key) -> None:
    for value in itertools.islice(values_of(key), len(key.name) % 11, None, 22):
        check(key, value)


@pytest.mark.slow
@pytest.mark.parametrize("key", all_keys(), ids=lambda key: f"{key.needs}-{key.name}")
def test_every_nasty_value_composes_or_is_refused_by_its_key(key: Key) -> None:
    for value in values_of(key):
        check(key, value)
