"""``cluster=torchrun``: the command of every machine, or this machine's part of the run."""

import shlex
import sys
from pathlib import Path

from configs.schema import RunConfig
from configs.schema.cluster import TorchrunConfig
from launch.clusters.local import make_ready
from launch.clusters.node import NodeSpec, flags_of, ranks_per_node, run_node
from launch.command import module_environment


def commands_of(cluster: TorchrunConfig, config: RunConfig, overrides: list[str]) -> list[str]:
    """What to type on each node, node 0 first, in the folder of this command."""
    ranks_per_node(config, cluster.nodes)
    flags = [*flags_of(cluster), f"--endpoint={cluster.endpoint}", f"--run-id={run_id_of(config)}"]
    told = [f"{name}={value}" for name, value in (module_environment({}) | cluster.variables).items()]
    start = ["cd", str(Path.cwd())]
    return [
        f"{shlex.join(start)} && env {shlex.join(told)} "
        + shlex.join([sys.executable, "-m", "launch.clusters.node", *flags, f"--node={node}", *overrides])
        for node in range(cluster.nodes)
    ]


def run_this_node(cluster: TorchrunConfig, config: RunConfig, overrides: list[str]) -> int:
    """Run node ``cluster.node``; node 0 makes the store first where it is missing. Returns the exit code."""
    ranks_per_node(config, cluster.nodes)
    if cluster.node == 0 and (code := make_ready(config, overrides)):
        return code
    place = NodeSpec(
        nodes=cluster.nodes,
        fewest_nodes=cluster.fewest_nodes,
        node=cluster.node,
        endpoint=cluster.endpoint,
        run_id=run_id_of(config),
        max_restarts=cluster.max_restarts,
        timeout_s=cluster.rendezvous_timeout_s,
    )
    return run_node(place, config, overrides)


def run_id_of(config: RunConfig) -> str:
    """The same on every node without a word between them."""
    return Path(config.run_dir).name or "run"
