"""What the doctor examines: the run that shall be trained, and on how many nodes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from configs.errors import ConfigError
from configs.schema import HardwareConfig, RunConfig
from launch.doctor.row import Row, failed, good
from launch.doctor.software import install_command

NODES_KEY = "doctor.nodes"


@dataclass(frozen=True, slots=True)
class Subject:
    """The composed run, the nodes that it shall use, and the row that says how it was composed."""

    config: RunConfig
    num_nodes: int
    row: Row

    @property
    def here(self) -> HardwareConfig:
        """The hardware of one node: its share of ``hardware.num_ranks``, which are those of the whole job."""
        hardware = self.config.hardware
        return replace(hardware, num_ranks=-(-hardware.num_ranks // self.num_nodes))


def subject_of(overrides: Sequence[str]) -> Subject:
    """The run that ``overrides`` choose; without Hydra the schema's defaults and a failed row.

    Raises :class:`ConfigError` for a wrong key or value, as every verb does.
    """
    num_nodes, own = _num_nodes(overrides), [word for word in overrides if not word.startswith("doctor.")]
    try:
        from configs.load import left_to_the_machine, load_config  # Hydra may be what is missing
    except ImportError as error:
        found = f"{error}: keys and values were not read, defaults are examined"
        return Subject(RunConfig(), num_nodes, failed("configuration", found, install_command()))
    config = load_config(own)
    if "hardware.num_ranks" in left_to_the_machine(own):  # those that fit one node
        config.hardware.num_ranks *= num_nodes
    hardware = config.hardware
    if hardware.num_ranks % num_nodes and any(word.startswith("hardware.num_ranks=") for word in own):
        raise ConfigError(
            f"hardware.num_ranks={hardware.num_ranks}, the ranks of the whole job, cannot be shared out over "
            f"{NODES_KEY}={num_nodes}; make it a multiple"
        )
    found = f"hardware={hardware.name}: hardware.num_ranks={hardware.num_ranks} on {hardware.device}"
    found += f"; nodes: {num_nodes}" + (f", {hardware.num_ranks // num_nodes} ranks each" if num_nodes > 1 else "")
    return Subject(config, num_nodes, good("configuration", found))


def _num_nodes(overrides: Sequence[str]) -> int:
    """``doctor.nodes``, else the nodes of the Slurm allocation that this process is in, else 1."""
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    for word in overrides:
        if not word.startswith("doctor."):
            continue
        key, _, nodes = word.partition("=")
        if key != NODES_KEY or not nodes.isdecimal() or int(nodes) < 1:
            raise ConfigError(f"{word}: the doctor's own key is {NODES_KEY}=N, a number of nodes of 1 or more")
    return int(nodes)
