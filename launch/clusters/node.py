"""``python -m launch.clusters.node --nodes N --node K --endpoint HOST:PORT key=value ...``: node K's part of a run.

The nodes meet first (``launch.clusters.rendezvous``); then ``train.supervision.elastic_agent`` starts this node's
ranks.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.schema import RunConfig
from configs.schema.cluster import ClusterConfig
from launch.clusters.local import make_ready
from launch.clusters.rendezvous import Report, meet, wait_for_host
from launch.command import hold_stop_signals, run_module


@dataclass(kw_only=True, slots=True)
class NodeSpec:
    """Where this node stands in a job."""

    nodes: int
    fewest_nodes: int
    node: int
    endpoint: str
    run_id: str
    max_restarts: int = 0
    timeout_s: int = 60
    names: list[str] = field(default_factory=list)


def ranks_per_node(config: RunConfig, nodes: int) -> int:
    """Ranks of each of ``nodes``; raises :class:`ConfigError` where they cannot be shared out evenly."""
    num_ranks = config.hardware.num_ranks
    if num_ranks % nodes:
        raise ConfigError(
            f"hardware.num_ranks={num_ranks} cannot be shared out over cluster.nodes={nodes}; make it a multiple"
        )
    return num_ranks // nodes


def flags_of(cluster: ClusterConfig) -> list[str]:
    """The flags of ``launch.clusters.node`` that ``cluster`` gives; where the nodes meet, and as which run, comes
    to them."""
    restarts = [f"--max-restarts={cluster.max_restarts}"] if cluster.max_restarts else []
    nodes = _nodes_flag(cluster.fewest_nodes, cluster.nodes)
    return [nodes, f"--timeout={cluster.rendezvous_timeout_s}", *restarts]


def run_node(place: NodeSpec, config: RunConfig, overrides: Sequence[str]) -> int:
    """Meet the other nodes, then run this node's ranks to their end; the exit code."""
    hold_stop_signals()
    num_ranks = ranks_per_node(config, place.nodes)
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    if place.fewest_nodes < place.nodes:
        if place.node != 0:
            wait_for_host(place.endpoint, place.timeout_s)
    else:
        own = Report(node=place.node, name=name, num_nodes=place.nodes, num_ranks=num_ranks, run_id=place.run_id)
        reports = meet(own, place.endpoint, timeout_s=place.timeout_s, names=place.names)
        if place.node == 0:
            print("\n".join(map(str, reports)), file=sys.stderr, flush=True)
    nodes = _nodes_flag(place.fewest_nodes, place.nodes)
    flags = [f"--ranks={num_ranks}", nodes, f"--endpoint={place.endpoint}", f"--run-id={place.run_id}"]
    flags += [f"--join-timeout={place.timeout_s}", f"--max-restarts={place.max_restarts}"]
    host = ["--host"] if place.node == 0 else []
    arguments = [*flags, *host, "train", *overrides]
    return run_module(
        "train.supervision.elastic_agent", arguments, num_threads=config.hardware.num_threads, is_training=True
    )


def _nodes_flag(fewest: int, most: int) -> str:
    return f"--nodes={most}" if fewest == most else f"--nodes={fewest}:{most}"


def main(arguments: Sequence[str]) -> int:
    """0, or what the ranks ended with, or 2 after one line on stderr."""
    return exit_code_of(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="launch.clusters.node", description=__doc__)
    parser.add_argument("--nodes", required=True, help="NUMBER, or FEWEST:MOST of an elastic job")
    parser.add_argument("--node", type=int, default=None, help="which one this is, from 0")
    parser.add_argument("--node-variable", default="", help="the environment variable that says so")
    parser.add_argument("--endpoint", required=True, help="HOST:PORT of node 0")
    parser.add_argument("--run-id", required=True, help="the same on all nodes of one start")
    parser.add_argument("--max-restarts", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=60, help="seconds that nodes wait for one another")
    parser.add_argument("--prepare", action="store_true", help="node 0 makes the store first where it is missing")
    parser.add_argument("--names", default="", help="names of the nodes, by comma, for messages")
    parser.add_argument("overrides", nargs="*")
    told = parser.parse_args(arguments)
    fewest, _, most = told.nodes.partition(":")
    place = NodeSpec(
        nodes=int(most or fewest),
        fewest_nodes=int(fewest),
        node=told.node if told.node is not None else int(os.environ[told.node_variable]),
        endpoint=told.endpoint,
        run_id=told.run_id,
        max_restarts=told.max_restarts,
        timeout_s=told.timeout,
        names=[name for name in told.names.split(",") if name],
    )
    config = load_config(told.overrides)
    if told.prepare and place.node == 0 and (code := make_ready(config, told.overrides)):
        return code
    return run_node(place, config, told.overrides)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
