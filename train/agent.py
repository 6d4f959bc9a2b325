"""``python -m train.agent NUM_RANKS MODULE key=value ...``: MODULE on so many processes of this machine.

torchrun's elastic agent, with what a shell needs of it: the ranks' exit code, stop signals handed on and waited for,
and of several ranks that fail the one that failed first, told once.
"""

import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from configs.errors import HUNG_EXIT_CODE, REQUEUE_EXIT_CODE, USAGE_EXIT_CODE
from configs.load import load_config
from configs.schema import RunConfig
from train.ending import TELLS_FOR_RANKS
from train.run_folder import STOPPED


def start_ranks(num_ranks: int, module: str, config: RunConfig, overrides: Sequence[str]) -> int:
    """Run the ranks to their end and return what the first of them returned that was not 0.

    128 + n where signal n ended a rank; 75 where a stop signal came here and the ranks have saved.
    """
    os.environ[TELLS_FOR_RANKS] = "1"
    logging.disable(logging.ERROR)  # the agent's own reports, which this function replaces
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        shutdown_timeout=config.hardware.timeout_s,
    )
    try:
        launch_agent(launch, sys.executable, ["-m", module, *overrides])
    except ChildFailedError as error:
        return _told(error.failures)
    except SignalException as stop:
        return REQUEUE_EXIT_CODE if (Path(config.run_dir) / STOPPED).is_file() else 128 + int(stop.sigval)
    return 0


def _told(failures: dict[int, ProcessFailure]) -> int:
    """Tell the failure that the others follow from; its exit code as a shell gives it."""
    if any(each.exitcode == HUNG_EXIT_CODE for each in failures.values()):
        return HUNG_EXIT_CODE  # told by the watchdog of one rank; others may have been killed for it
    root = min(failures.values(), key=lambda each: (not _was_killed(each), each.timestamp))
    if root.exitcode in (USAGE_EXIT_CODE, REQUEUE_EXIT_CODE):
        return root.exitcode  # the rank has told its line
    if root.exitcode < 0:
        hint = "; was memory short?" if -root.exitcode == signal.SIGKILL else ""
        print(f"rank {root.local_rank} was killed by {root.signal_name()}{hint}", file=sys.stderr, flush=True)
        return 128 - root.exitcode
    print(f"rank {root.local_rank} failed:\n{_traceback_of(root)}", file=sys.stderr, flush=True)
    return root.exitcode


def _was_killed(failure: ProcessFailure) -> bool:
    return failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM  # which the agent sends to the others


def _traceback_of(failure: ProcessFailure) -> str:
    path = Path(failure.error_file)
    if not path.is_file():
        return f"exit code {failure.exitcode}"
    return str(json.loads(path.read_text())["message"]["extraInfo"]["py_callstack"])


def main(arguments: Sequence[str]) -> int:
    """Entry of ``python -m train.agent``; the overrides were checked by whoever starts it."""
    num_ranks, module, *overrides = arguments
    return start_ranks(int(num_ranks), module, load_config(overrides), overrides)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
