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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous.api import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousTimeoutError,
)

from configs.errors import HUNG_EXIT_CODE, REQUEUE_EXIT_CODE, USAGE_EXIT_CODE, NodesMissingError, exit_code_of
from configs.lifeline import tied_environment
from configs.load import load_config
from configs.process_exit import exit_at_once
from configs.run_dir import local_run_dir
from configs.schema import RunConfig
from train.distributed.environment import check_environment, use_loopback
from train.distributed.meeting import Node, meeting_of
from train.run_dir.identity import STOPPED
from train.supervision.process_exit import AGENT_REPORTS_ERRORS
from train.supervision.stop_signals import answered_signals, release_stop_signals

LOST_PEER = ("Connection reset by peer", "Connection closed by peer", "ncclRemoteError")
"""What gloo and NCCL say when the process at the other end is gone."""
LAST_WORDS_S = 5
"""How long ranks that have lost another one may still tell and send what they have logged."""
SAVING_S = 30


def start_ranks(node: Node, module: str, config: RunConfig, overrides: Sequence[str]) -> int:
    """Run this node's ranks to their end and return what the first of them returned that was not 0.

    128 + n where signal n ended a rank; 75 where a stop signal came here and the ranks have saved.
    Raises :class:`NodesMissingError` where the nodes do not meet.
    """
    check_environment(config.hardware, node.num_ranks)
    if node.max_nodes == 1:
        use_loopback()
    os.environ |= tied_environment({AGENT_REPORTS_ERRORS: "1"})
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ",".join(number.name for number in _stop_signals())
    if node.min_nodes < node.max_nodes:
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # with it shared, a node that joins hangs all (2.13)
    logging.disable(logging.ERROR)  # the agent's own reports, which this function replaces
    handler = None
    try:
        handler = meeting_of(node)
        spec = WorkerSpec(
            role="default",
            local_world_size=node.num_ranks,
            entrypoint=sys.executable,
            args=("-m", "configs.start", module, *overrides),
            rdzv_handler=handler,
            max_restarts=node.max_restarts,
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
        for number in _stop_signals():  # as torch has it, but once: a second one would end the wait for the ranks
            signal.signal(number, _stop_once)
        release_stop_signals()  # those that came since this process was started; its handlers stand only now
        context: Any = self._pcontext
        end_ranks = context.close

        def close(death_sig: signal.Signals | None = None, timeout: int | None = None) -> None:
            """torch ends the other ranks by this when one has failed, and would wait half a minute for each."""
            end_ranks(death_sig, last_words_s(context._failures) if timeout is None else timeout)

        context.close = close
        return started

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        """Ranks that have lost one cannot save; those that make room for a node that joins can."""
        has_lost = worker_group.state in (WorkerState.FAILED, WorkerState.UNHEALTHY)
        self._shutdown(timeout=LAST_WORDS_S if has_lost else SAVING_S)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if any(each.exitcode in (USAGE_EXIT_CODE, REQUEUE_EXIT_CODE) for each in result.failures.values()):
            self._remaining_restarts = 0
        elif result.is_failed() and self._remaining_restarts > 0:
            _report_failure(result.failures)
            most = worker_group.spec.max_restarts
            print(f"restart {most - self._remaining_restarts + 1} of {most}", file=sys.stderr, flush=True)
        return result


def last_words_s(failures: Mapping[int, ProcessFailure]) -> int:
    """Seconds that the other ranks get after these have ended: those that were told to stop may be saving still."""
    are_stopped = all(each.exitcode == REQUEUE_EXIT_CODE for each in failures.values())
    return SAVING_S if are_stopped else LAST_WORDS_S


def _stop_signals() -> list[signal.Signals]:
    return [*answered_signals(), signal.SIGQUIT]


def _stop_once(number: int, frame: FrameType | None) -> None:
    for each in _stop_signals():
        signal.signal(each, lambda number, frame: None)
    raise SignalException(f"signal {number}", sigval=signal.Signals(number))


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
    parser.add_argument("--node", type=int, default=0, help="which one this is, from 0, where the nodes meet")
    parser.add_argument("--endpoint", default="", help="HOST:PORT where several nodes meet")
    parser.add_argument("--run-id", default="", help="the same on all nodes of one start")
    parser.add_argument("--max-restarts", type=int, default=0)
    parser.add_argument("--join-timeout", type=int, default=60, help="seconds")
    parser.add_argument("module")
    parser.add_argument("overrides", nargs="*")
    told = parser.parse_args(arguments)
    fewest, _, most = told.nodes.partition(":")
    node = Node(
        num_ranks=told.ranks,
        node=told.node,
        min_nodes=int(fewest),
        max_nodes=int(most or fewest),
        endpoint=told.endpoint,
        run_id=told.run_id,
        max_restarts=told.max_restarts,
        join_timeout_s=told.join_timeout,
    )
    return exit_code_of(lambda: start_ranks(node, told.module, load_config(told.overrides), told.overrides))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
