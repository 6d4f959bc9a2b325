"""``cluster=torchrun``: the command of every machine, or this machine's part of the run."""

import shlex
import sys
from pathlib import Path

from configs.process_environment import module_environment
from configs.schema import RunConfig
from configs.schema.cluster import TorchrunConfig
from launch.clusters.node import NodeSpec, bind_ranks, flags_of, ranks_per_node, run_node
from launch.verbs import TRAIN, Verb


def commands_of(cluster: TorchrunConfig, verb: Verb, config: RunConfig, overrides: list[str]) -> list[str]:
    """What to type on each node, node 0 first, in the folder of this command.

    ``cluster.environment`` is there by name alone, since values may be secrets: the node's shell has to have them.
    """
    ranks_per_node(config, cluster.nodes)
    verbs = [] if verb is TRAIN else [f"--verb={verb.name}"]
    flags = [*flags_of(cluster), *verbs, f"--endpoint={cluster.endpoint}", f"--run-id={run_id_of(config)}"]
    told = [shlex.quote(f"{name}={value}") for name, value in module_environment({}).items()]
    told += [f'{name}="${{{name}:?export it first}}"' for name in cluster.variables]
    start = ["cd", str(Path.cwd())]
    return [
        f"{shlex.join(start)} && env {' '.join(told)} "
        + shlex.join([sys.executable, "-m", "launch.clusters.node", *flags, f"--node={node}", *overrides])
        for node in range(cluster.nodes)
    ]


def run_this_node(cluster: TorchrunConfig, verb: Verb, config: RunConfig, overrides: list[str]) -> int:
    """Run node ``cluster.node``; node 0 makes the store first where it is missing. Returns the exit code."""
    ranks_per_node(config, cluster.nodes)
    bind_ranks(cluster.bind_ranks)
    place = NodeSpec(
        nodes=cluster.nodes,
        fewest_nodes=cluster.fewest_nodes,
        node=cluster.node,
        endpoint=cluster.endpoint,
        run_id=run_id_of(config),
        max_restarts=cluster.max_restarts,
        timeout_s=cluster.rendezvous_timeout_s,
        verb=verb,
    )
    return run_node(place, config, overrides)


def run_id_of(config: RunConfig) -> str:
    """The same on every node without a word between them."""
    return Path(config.run_dir).name or "run"
