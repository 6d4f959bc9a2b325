"""``shardrec VERB key=value ...``: says what it will do, starts it, and returns its exit code."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import USAGE_EXIT_CODE, ConfigError, exit_code_of

if TYPE_CHECKING:
    from configs.schema import RunConfig

ROOT = Path(__file__).resolve().parents[1]
"""Where our packages lie."""

REUSE_ALLOCATIONS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""glibc keeps freed memory: on a CPU a fresh large tensor costs more in page faults than the arithmetic on it."""

BOUND_KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""oneDNN keeps a kernel for each shape of a bfloat16 product, 1,024 by default. The number of tokens is another
in every step, so they grew by 1.5 MiB a step. (Both names: oneDNN's own cache and torch's in front of it.)"""

_HELP = """usage: shardrec VERB [key=value ...]

From Parquet logs of interactions to a trained, exactly evaluated and priced recommender.

verbs:
  config      print the resolved run
  prepare     make the store at data.store of the log at data.log
  train       prepare where needed, then train, resuming by itself
  evaluate    rank the whole catalogue with a run's best checkpoint
  bench NAME  run one benchmark

shardrec VERB --help shows the options that matter. Every key: shardrec config"""

_VERB_HELP = {
    "config": """usage: shardrec config [key=value ...]

Prints the resolved run as YAML.

  experiment=NAME     smoke | ml1m_sasrec | ml1m_sasrec_sampled | beauty_sasrec  (none)
  model=sasrec  data=log|synthetic|ml1m|beauty  loss=full_softmax|sampled_softmax|bce|gbce
  optimizer=default|adam  sharding=planner|row_wise|table_wise|column_wise|data_parallel  hardware=cpu|h100""",
    "prepare": """usage: shardrec prepare data.log=LOG data.store=STORE [key=value ...]

Makes a store of a log. Writes STORE.

  data.log               Parquet, CSV or JSON-lines file, folder or glob  (required)
  data.store             the store to write  (required)
  data.columns.user      the log's column of users  (user_id)
  data.columns.item      the log's column of items  (item_id)
  data.columns.timestamp the log's column of times  (timestamp)
  data.min_user_events   users with fewer events are left out  (1)
  data.min_item_events   items with fewer events are left out  (1)
  data.max_bad_fraction  more broken rows than this are an error  (0.01)
  data.memory_gib        bound of the memory used  (2.0)""",
    "train": """usage: shardrec train [key=value ...]

Prepares the store if it is not there, then trains; the same run_dir again resumes. Writes RUN_DIR.

  experiment=NAME        smoke | ml1m_sasrec | ml1m_sasrec_sampled | beauty_sasrec  (none)
  run_dir                where the run is written  (runs/default)
  data.store             the store to learn from  (required without an experiment)
  num_epochs             passes over the training users  (10)
  num_steps              stop after this many steps; 0: by num_epochs  (0)
  hardware.num_ranks     processes, one device each  (2)
  loss                   full_softmax | sampled_softmax | bce | gbce  (full_softmax)
  sharding               planner | row_wise | table_wise | column_wise | data_parallel  (planner)""",
    "evaluate": """usage: shardrec evaluate run_dir=RUN_DIR [key=value ...]

Exact ranking of a run's best checkpoint against the floors. Writes RUN_DIR/evaluation.json.

  run_dir                      the run to evaluate  (runs/default)
  evaluation.leave_out_seen    items of the user's history are no candidates  (true)
  evaluation.batch_size        users ranked at once  (256)""",
    "bench": """usage: shardrec bench NAME [key=value ...]

Runs one benchmark: stream | step | evaluate | checkpoint. Writes benchmarks/results/NAME.json.""",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code of what it started, or 2 after one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        return 0 if words else USAGE_EXIT_CODE
    verb, *overrides = words
    if verb in _VERB_HELP and any(word in ("-h", "--help") for word in overrides):
        print(_VERB_HELP[verb])
        return 0
    return exit_code_of(lambda: _verb_of(verb)(overrides))


def _verb_of(name: str) -> Callable[[list[str]], int]:
    verbs = {"config": _config, "prepare": _prepare, "train": _train, "evaluate": _evaluate, "bench": _bench}
    if name not in verbs:
        raise ConfigError(f"{name} is not a verb; use one of {', '.join(verbs)}")
    return verbs[name]


def _config(overrides: list[str]) -> int:
    from configs.load import load_config, resolved_yaml  # hydra takes longer to import than --help may take

    print(resolved_yaml(load_config(overrides)), end="")
    return 0


def _prepare(overrides: list[str]) -> int:
    _composed(overrides)
    return _start("data_pipeline.prepare", overrides)


def _train(overrides: list[str]) -> int:
    config = _composed(overrides)
    if _must_prepare(config):
        code = _start("data_pipeline.prepare", overrides)
        if code:
            return code
    return _start("train.preflight", overrides) or _start("train", overrides, config)


def _evaluate(overrides: list[str]) -> int:
    saved = Path(_composed(overrides).run_dir) / "overrides.txt"
    if not saved.is_file():
        raise ConfigError(f"run_dir={saved.parent} holds no run; train it first")
    return _start("train.evaluate", overrides, _composed([*saved.read_text().splitlines(), *overrides]))


def _bench(overrides: list[str]) -> int:
    if not overrides or "=" in overrides[0]:
        raise ConfigError("bench needs the NAME of a benchmark first: shardrec bench NAME [key=value ...]")
    return _start("benchmarks", overrides)


def _composed(overrides: list[str]) -> "RunConfig":
    from configs.load import load_config

    return load_config(overrides)


def _must_prepare(config: "RunConfig") -> bool:
    """Whether there is no store yet; a synthetic log is looked at again, since its choices may have changed."""
    data = config.data
    is_missing = not (Path(data.store) / "manifest.json").exists()
    return data.synthetic.num_users > 0 or (bool(data.log) and is_missing)


def _start(module: str, overrides: list[str], config: "RunConfig | None" = None) -> int:
    """Run ``python -m module overrides`` here, on ``hardware.num_ranks`` processes where ``config`` is given."""
    environment = _environment()
    command = [sys.executable, "-m", module, *overrides]
    if config is not None:
        environment["OMP_NUM_THREADS"] = str(config.hardware.num_threads)
        if config.hardware.num_ranks > 1:
            command = [sys.executable, "-m", "train.agent", str(config.hardware.num_ranks), module, *overrides]
    print(f"shardrec: {shlex.join(command[1:])}", file=sys.stderr, flush=True)
    return _exit_code_of(subprocess.Popen(command, env=environment))


def _environment() -> dict[str, str]:
    """This process's, in which ``-m train`` means our package and not a folder of that name in the working folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    packages = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return REUSE_ALLOCATIONS | BOUND_KERNEL_CACHES | os.environ | packages


def _exit_code_of(child: "subprocess.Popen[bytes]") -> int:
    """Wait for ``child``; 128 + n where signal n ended it, as a shell says.

    SIGTERM and SIGUSR1 are handed on. A terminal sends Ctrl-C to the child itself, which then needs time to save: it
    is not killed here.
    """
    handlers = {
        number: signal.signal(number, lambda received, frame: child.send_signal(received))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
