"""Which name chooses what: ``loss=bce`` is :class:`BCEConfig`. The first of each group is its default.

A YAML file in ``configs/GROUP`` adds a name where values differ from a dataclass.
"""

from pathlib import Path
from typing import Any

from configs.outside_encoders import encoders
from configs.schema import (
    BCEConfig,
    DataConfig,
    FullSoftmaxConfig,
    GBCEConfig,
    HardwareConfig,
    MSEConfig,
    OptimizerConfig,
    SampledSoftmaxConfig,
    Sharding,
    ShardingConfig,
)
from configs.schema.cluster import LocalConfig, SlurmConfig, TorchrunConfig
from configs.schema.kubernetes import KubernetesConfig

CONFIG_DIR = Path(__file__).resolve().parent

PRESETS = "experiment"
"""The group that is no key: its files set keys of the others."""

CHOICES: dict[str, dict[str, Any]] = {
    "data": {"log": DataConfig},
    "model": encoders(),
    "loss": {
        "full_softmax": FullSoftmaxConfig,
        "sampled_softmax": SampledSoftmaxConfig,
        "bce": BCEConfig,
        "gbce": GBCEConfig,
        "mse": MSEConfig,
    },
    "optimizer": {"default": OptimizerConfig},
    "sharding": {each.value: ShardingConfig(strategy=each) for each in Sharding},
    "hardware": {"cpu": HardwareConfig},
    "cluster": {
        "local": LocalConfig,
        "torchrun": TorchrunConfig,
        "slurm": SlurmConfig,
        "kubernetes": KubernetesConfig,
    },
}
"""The dataclass, or one with values of its own, behind each name of each group."""


def names_of(group: str) -> list[str]:
    """Every name that ``group`` takes: the default first, then the other dataclasses, then the YAML files."""
    files = sorted(file.stem for file in (CONFIG_DIR / group).glob("*.yaml"))
    return [*CHOICES.get(group, {}), *files]
