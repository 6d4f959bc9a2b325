"""``python -m train.supervision.elastic_agent --ranks N MODULE key=value ...``: MODULE on N processes of this
machine, one node of a job.

torchrun's elastic agent, with what a shell needs of it: the ranks' exit code, stop signals handed on and waited for,
of several ranks that fail the one that failed first, told once, and restarts only of what a restart can mend.
"""

import argparse
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed.elastic.rendezvous.registry as rendezvous
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousTimeoutError,
)

from configs.errors import HUNG_EXIT_CODE, REQUEUE_EXIT_CODE, USAGE_EXIT_CODE, NodesMissingError, exit_code_of
from configs.load import load_config
from configs.run_dir import local_run_dir
from configs.schema import RunConfig
from train.run_dir.identity import STOPPED
from train.supervision.process_exit import AGENT_REPORTS_ERRORS
from train.supervision.stop_signals import release_stop_signals

LOST_PEER = ("Connection reset by peer", "Connection closed by peer", "ncclRemoteError")
"""What gloo and NCCL say when the process at the other end is gone."""
LAST_CALL_S = 5
"""How long an elastic job that has enough nodes waits for more."""


@dataclass(kw_only=True, slots=True)
class Node:
    """This machine's part of a job; the defaults are a job of one machine."""

    num_ranks: int
    min_nodes: int = 1
    max_nodes: int = 1
    endpoint: str = "localhost:0"
    """``HOST:PORT`` where the nodes meet."""
    run_id: str = ""
    """The same on all nodes of one start of a job."""
    is_host: bool = True
    """Whether the meeting point is on this machine; of one machine it always is."""
    max_restarts: int = 0
    join_timeout_s: int = 60
    """How long the nodes wait for one another."""


def start_ranks(node: Node, module: str, config: RunConfig, overrides: Sequence[str]) -> int:
    """Run this node's ranks to their end and return what the first of them returned that was not 0.

    128 + n where signal n ended a rank; 75 where a stop signal came here and the ranks have saved.
    Raises :class:`NodesMissingError` where the nodes do not meet.
    """
    os.environ[AGENT_REPORTS_ERRORS] = "1"
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    if node.min_nodes < node.max_nodes:
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # with it shared, a node that joins hangs all (2.13)
    logging.disable(logging.ERROR)  # the agent's own reports, which this function replaces
    handler = None
    try:
        handler = rendezvous.get_rendezvous_handler(_meeting(node))
        spec = WorkerSpec(
            role="default",
            local_world_size=node.num_ranks,
            entrypoint=sys.executable,
            args=("-m", module, *overrides),
            rdzv_handler=handler,
            max_restarts=node.max_restarts,
            local_addr=_address(node),
        )
        result = _Agent(spec, DefaultLogsSpecs(), shutdown_timeout=config.hardware.timeout_s).run()
    except SignalException as stop:
        handler = None  # closing it would end the job for the other nodes too
        return REQUEUE_EXIT_CODE if (local_run_dir(config) / STOPPED).is_file() else 128 + int(stop.sigval)
    except (RendezvousConnectionError, RendezvousTimeoutError, RendezvousClosedError) as error:
        raise NodesMissingError(
            f"the nodes did not meet at {node.endpoint} within {node.join_timeout_s} s: {error or 'not all came'}; "
            f"is the port open, and was every node started?"
        ) from error
    finally:
        if handler is not None:
            handler.shutdown()
    return _report_failure(result.failures) if result.is_failed() else 0


class _Agent(LocalElasticAgent):
    """Starts the ranks again only after what may pass: not after a wrong key, nor after a stop that was asked for."""

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        started = super()._start_workers(worker_group)
        release_stop_signals()  # those that came since this process was started; its handlers stand only now
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if any(each.exitcode in (USAGE_EXIT_CODE, REQUEUE_EXIT_CODE) for each in result.failures.values()):
            self._remaining_restarts = 0
        elif result.is_failed() and self._remaining_restarts > 0:
            _report_failure(result.failures)
            most = worker_group.spec.max_restarts
            print(f"restart {most - self._remaining_restarts + 1} of {most}", file=sys.stderr, flush=True)
        return result


def _meeting(node: Node) -> RendezvousParameters:
    choices: dict[str, Any] = {"timeout": node.join_timeout_s, "join_timeout": node.join_timeout_s}
    choices["is_host"] = node.is_host or node.max_nodes == 1  # torchrun would guess by the name of the machine
    if node.min_nodes < node.max_nodes:
        choices |= {"last_call_timeout": LAST_CALL_S}
    return RendezvousParameters(
        backend="c10d",
        endpoint=node.endpoint,
        run_id=node.run_id or uuid.uuid4().hex,
        min_nodes=node.min_nodes,
        max_nodes=node.max_nodes,
        local_addr=_address(node),
        **choices,
    )


def _address(node: Node) -> str | None:
    """Of this machine for the ranks; None: by its name, which need not resolve where there is no other machine."""
    return "localhost" if node.max_nodes == 1 else None


def _report_failure(failures: dict[int, ProcessFailure]) -> int:
    """Tell the failure, of those of this node by rank, that the others follow from; its exit code as in a shell."""
    if any(each.exitcode == HUNG_EXIT_CODE for each in failures.values()):
        return HUNG_EXIT_CODE  # told by the watchdog of one rank; others may have been killed for it
    rank, root = min(failures.items(), key=lambda each: (_follows(each[1]), each[1].timestamp))
    if root.exitcode in (USAGE_EXIT_CODE, REQUEUE_EXIT_CODE):
        return root.exitcode  # the rank has told its line
    if root.exitcode < 0:
        hint = "; was memory short?" if -root.exitcode == signal.SIGKILL else ""
        words = f"rank {rank} was killed by {root.signal_name()}{hint}"
    elif lost := _lost_peer(root):
        words = f"rank {rank} lost a rank of another node, whose log tells why: {lost}"
    else:
        words = f"rank {rank} failed:\n{_traceback_of(root)}"
    print(words, file=sys.stderr, flush=True)
    return 128 - root.exitcode if root.exitcode < 0 else root.exitcode


def _follows(failure: ProcessFailure) -> int:
    """0: killed from outside, 1: failed by itself, 2: lost another rank, or was ended by the agent for one."""
    if failure.exitcode < 0:
        return 2 if -failure.exitcode == signal.SIGTERM else 0
    return 2 if _lost_peer(failure) else 1


def _lost_peer(failure: ProcessFailure) -> str:
    traceback = _traceback_of(failure)
    return next((words for words in LOST_PEER if words in traceback), "")


def _traceback_of(failure: ProcessFailure) -> str:
    path = Path(failure.error_file)
    if not path.is_file():
        return f"exit code {failure.exitcode}"
    return str(json.loads(path.read_text())["message"]["extraInfo"]["py_callstack"])


def main(arguments: Sequence[str]) -> int:
    """Entry of ``python -m train.supervision.elastic_agent``; the overrides were checked by whoever starts it."""
    parser = argparse.ArgumentParser(prog="train.supervision.elastic_agent", description=__doc__)
    parser.add_argument("--ranks", type=int, required=True, help="processes of this node")
    parser.add_argument("--nodes", default="1", help="NUMBER, or FEWEST:MOST of an elastic job")
    parser.add_argument("--endpoint", default="localhost:0", help="HOST:PORT where the nodes meet")
    parser.add_argument("--run-id", default="", help="the same on all nodes of one start")
    parser.add_argument("--host", action="store_true", help="the meeting point is on this node")
    parser.add_argument("--max-restarts", type=int, default=0)
    parser.add_argument("--join-timeout", type=int, default=60, help="seconds")
    parser.add_argument("module")
    parser.add_argument("overrides", nargs="*")
    told = parser.parse_args(arguments)
    fewest, _, most = told.nodes.partition(":")
    node = Node(
        num_ranks=told.ranks,
        min_nodes=int(fewest),
        max_nodes=int(most or fewest),
        endpoint=told.endpoint,
        run_id=told.run_id,
        is_host=told.host,
        max_restarts=told.max_restarts,
        join_timeout_s=told.join_timeout,
    )
    return exit_code_of(lambda: start_ranks(node, told.module, load_config(told.overrides), told.overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
