"""``python -m launch.clusters.node --nodes N --node K --endpoint HOST:PORT key=value ...``: node K's part of a run.

The nodes meet first (``launch.clusters.rendezvous``); then ``train.supervision.elastic_agent`` starts this node's
ranks.
"""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from configs.command_time import forget_began
from configs.errors import REQUEUE_EXIT_CODE, ConfigError, exit_code_of
from configs.run_dir import BIND_RANKS, RANK_LOG, local_run_dir
from configs.schema import RunConfig
from configs.schema.cluster import ClusterConfig
from launch.clusters.local import make_ready
from launch.clusters.rendezvous import meet, wait_for_host
from launch.clusters.rendezvous_host import Host
from launch.clusters.report import MeetingStopped, PrepareFailed, Report
from launch.command import STOP_SIGNALS, hold_stop_signals, run_module
from launch.verbs import TRAIN, VERBS, Verb, compose


@dataclass(kw_only=True, slots=True)
class NodeSpec:
    """Where this node stands in a job."""

    nodes: int
    fewest_nodes: int
    node: int
    endpoint: str
    run_id: str
    max_restarts: int = 0
    timeout_s: int = 600
    names: list[str] = field(default_factory=list)
    verb: Verb = TRAIN


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
    bind = [f"--bind-ranks={cluster.bind_ranks}"] if cluster.bind_ranks != "none" else []
    nodes = _nodes_flag(cluster.fewest_nodes, cluster.nodes)
    return [nodes, f"--timeout={cluster.rendezvous_timeout_s}", *restarts, *bind]


def run_node(place: NodeSpec, config: RunConfig, overrides: Sequence[str]) -> int:
    """Meet the other nodes, then run this node's ranks to their end; the exit code.

    Node 0 makes the store first where the verb trains: the others wait for as long as that takes.
    """
    hold_stop_signals()
    forget_began()
    try:
        _meet(place, config, overrides)
    except PrepareFailed as failure:
        return int(failure.args[0])
    except MeetingStopped:
        print("asked to stop while the nodes met: nothing was started; start it again", file=sys.stderr, flush=True)
        return REQUEUE_EXIT_CODE
    if not place.verb.saves_when_stopped:  # its ranks would never answer the signals that wait
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    os.environ[RANK_LOG] = str(local_run_dir(config) / "logs" / f"{place.verb.log_prefix}rank-{{rank}}.log")
    nodes = _nodes_flag(place.fewest_nodes, place.nodes)
    flags = [f"--ranks={ranks_per_node(config, place.nodes)}", nodes]
    flags += [f"--endpoint={place.endpoint}", f"--run-id={place.run_id}"]
    flags += [f"--join-timeout={place.timeout_s}", f"--max-restarts={place.max_restarts}"]
    arguments = [*flags, f"--node={place.node}", place.verb.module, *overrides]
    num_threads = config.hardware.num_threads
    is_training = place.verb.saves_when_stopped
    return run_module("train.supervision.elastic_agent", arguments, num_threads=num_threads, is_training=is_training)


def bind_ranks(how: str) -> None:
    """Have the ranks that this process starts pin themselves (``cluster.bind_ranks``)."""
    os.environ[BIND_RANKS] = how


def _meet(place: NodeSpec, config: RunConfig, overrides: Sequence[str]) -> None:
    def prepare() -> int:
        return make_ready(config, overrides) if place.verb is TRAIN else 0

    own = Report(
        node=place.node,
        name=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        num_nodes=place.nodes,
        num_ranks=ranks_per_node(config, place.nodes),
        run_id=place.run_id,
        cpus=ranges_of(os.sched_getaffinity(0)),
    )
    if place.fewest_nodes < place.nodes:
        if place.node != 0:
            wait_for_host(own, place.endpoint, place.timeout_s)
            return
        with Host(own, place.endpoint, place.names) as host:
            host.prepare(prepare)
            host.release()
        return
    reports = meet(own, place.endpoint, timeout_s=place.timeout_s, names=place.names, prepare=prepare)
    if place.node == 0:
        print("\n".join(map(str, reports)), file=sys.stderr, flush=True)


def ranges_of(numbers: Iterable[int]) -> str:
    """``{0, 1, 2, 5}`` -> ``0-2,5``."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in ranges)


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
    parser.add_argument("--timeout", type=int, default=600, help="seconds that nodes wait for one another")
    parser.add_argument("--verb", choices=VERBS, default=TRAIN.name, help="what the ranks do")
    parser.add_argument("--bind-ranks", default="none", help="processors of each rank: none, cores or numa")
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
        verb=VERBS[told.verb],
    )
    bind_ranks(told.bind_ranks)
    return run_node(place, *compose(place.verb, told.overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
