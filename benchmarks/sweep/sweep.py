"""A sweep from its command line to its index: plan, prepare once, run a few at a time, write down what came of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.runs.seeds import configurations_of
from benchmarks.sweep.index import ENDED, FAILED, METRIC, STOPPED, Index
from benchmarks.sweep.jobs import Job, Plan, plan_of
from benchmarks.sweep.options import SweepOptions
from benchmarks.sweep.pool import Pool, ending_of, log_of
from benchmarks.sweep.table import line_of, table_of
from configs.errors import REQUEUE_EXIT_CODE, ConfigError
from configs.lifeline import tie_when_started, tied_environment
from configs.paths import refuse_unwritable
from configs.url import is_url
from data_pipeline.store.lease import Lease
from train.preflight import check
from train.run_dir.identity import OF_PREPARE_ALONE

FAILED_EXIT_CODE = 1


def sweep(options: SweepOptions) -> int:
    """Run what ``options`` ask for; 0, 1 where a run failed, 75 after a stop, with all saved that had begun.

    Without a key of several values it indexes the runs that are in the folder. Raises :class:`ConfigError` and
    :class:`DataError` for what is wrong before any run has started.
    """
    folder = Path(options.folder)
    if not options.words and not options.is_dry_run:
        return _index_alone(folder)
    with ExitStack() as held:
        pool = None if options.is_dry_run else held.enter_context(Pool())  # loads torch while the plan is made
        plan = plan_of(options)
        _refuse_one_run(plan)
        if pool is None:
            return _print_plan(plan)
        refuse_unwritable(f"sweep_dir={options.folder}", folder)
        if code := _prepare(plan.jobs):
            return code
        for job in plan.jobs:
            _check(job)
        held.enter_context(Lease(folder, f"sweep_dir={options.folder}"))
        return _run_all(plan, Index(folder, plan.jobs), pool)


def _refuse_one_run(plan: Plan) -> None:
    if len(plan.jobs) == 1:
        raise ConfigError(
            "no key has several values, so this would be one run, which `shardrec train` makes; write several as "
            "seed=1,2,3 or loss=bce,full_softmax. Without any key, sweep_dir=DIR indexes the runs that are there"
        )


def _index_alone(folder: Path) -> int:
    if not folder.is_dir():
        raise ConfigError(
            f"sweep_dir={folder} does not exist; to run a sweep write keys with several values: seed=1,2"
        )
    index = Index(folder)
    if not index.states:
        raise ConfigError(f"sweep_dir={folder} holds no run; write keys with several values to make some: seed=1,2,3")
    _finish(index)
    return 0


def _print_plan(plan: Plan) -> int:
    for job in plan.jobs:
        print(job.config.run_dir)
    print(f"{len(plan.jobs)} runs, {plan.workers} at once")
    return 0


def _check(job: Job) -> None:
    """What would end the run at once, with what to do about it in a sweep."""
    try:
        check(job.config, job.words)
    except ConfigError as error:
        raise ConfigError(str(error).replace("choose another run_dir", "choose another sweep_dir")) from error


def _prepare(jobs: Sequence[Job]) -> int:
    """Make the stores that are not there yet, each once for all runs that read it; the exit code."""
    stores = dict[tuple[str, ...], Job]()
    for job in jobs:
        words = [
            word for word in job.words if word.startswith(("data.store=", *(f"{key}" for key in OF_PREPARE_ALONE)))
        ]
        stores.setdefault(tuple(sorted(words)), job)
    for job in stores.values():
        data = job.config.data
        is_there = is_url(data.store) or (Path(data.store) / "manifest.json").is_file()
        if data.synthetic.num_users or (data.log and not is_there):
            command = [sys.executable, "-m", "configs.start", "launch.clusters.local", *job.words]
            if code := subprocess.run(
                command, env=tied_environment(dict(os.environ)), preexec_fn=tie_when_started()
            ).returncode:
                return code
    return 0


def _run_all(plan: Plan, index: Index, pool: Pool) -> int:
    logs = index.folder / "logs"
    logs.mkdir(exist_ok=True)
    waiting = [job for job in plan.jobs if not is_trained(job, index)]
    num_done = len(plan.jobs) - len(waiting)
    print(
        f"{index.folder}: {len(plan.jobs)} runs, {num_done} of them done, {plan.workers} at once; what each "
        f"prints is in {logs}",
        flush=True,
    )
    starts = {job.name: _size(log_of(logs, job.name)) for job in waiting}
    index.write()
    with _answering_stops(pool):
        began_s = time.monotonic()
        for job, code in pool.run(waiting, logs, plan.workers):
            _note(index, job, code, ending_of(code, log_of(logs, job.name), starts[job.name]) if code else "")
            num_done += 1
            index.write()
            print(line_of(index, job, num_done, len(plan.jobs), time.monotonic() - began_s), flush=True)
    return _finish(index, stopped=pool.stop_requested)


def is_trained(job: Job, index: Index) -> bool:
    """Whether the run of ``job`` is there, trained as long as it shall be."""
    run = index.runs.get(job.name)
    config = job.config
    lengths = {"num_epochs": config.num_epochs, "num_steps": config.num_steps}
    return run is not None and all(run.keys.get(key) == value for key, value in lengths.items())


def _note(index: Index, job: Job, code: int, why: str) -> None:
    if code == 0:
        index.read(job.name)
    else:
        index.fail(job.name, STOPPED if code == REQUEUE_EXIT_CODE else FAILED, why)


def _finish(index: Index, *, stopped: bool = False) -> int:
    """Write the index, say what is in it, and return the exit code."""
    path = index.write()
    print(f"\n{table_of(configurations_of(index.ended()), METRIC)}\nwritten to {path}")
    not_ended = {name: state for name, state in index.states.items() if state[0] != ENDED}
    for name, (state, why) in not_ended.items():
        print(f"{state}: {name}{f': {why}' if why else ''}", file=sys.stderr)
    if stopped:
        print("stopped, all that had begun is saved; the same command continues", flush=True)
        return REQUEUE_EXIT_CODE
    if not_ended:
        return FAILED_EXIT_CODE
    print(f"`shardrec report {index.folder}` draws a page of it")
    return 0


@contextmanager
def _answering_stops(pool: Pool) -> Iterator[None]:
    """Stop signals reach the runs, which save; a second one ends them."""

    def stop(number: int, frame: FrameType | None) -> None:
        pool.stop()

    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    numbers += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    handlers = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
