"""What ``shardrec --help`` and ``shardrec VERB --help`` print: verbs from here, keys from the schema."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from configs.reference import Key, cluster_keys, run_keys, server_keys

WIDTH = 110
NAME_WIDTH = 30
"""Columns of a line of help, and of a name before its description."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """What help says of a verb; ``keys`` of the configuration that matter to it, ``options`` that are no keys."""

    summary: str
    usage: str
    about: str
    keys: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    notes: str = ""


VERBS = {
    "config": Verb(
        summary="print the resolved run",
        usage="[--reference] [key=value ...]",
        about="Prints the resolved run as YAML.",
        keys=("experiment", "data", "model", "loss", "optimizer", "sharding", "hardware"),
        options=(("--reference", "print docs/configuration.md instead: every key there is"),),
    ),
    "prepare": Verb(
        summary="make the store at data.store of the log at data.log",
        usage="data.log=LOG data.store=STORE [key=value ...]",
        about="Makes a store of a log. Writes STORE. Both may be s3://BUCKET/PATH: docs/object_stores.md",
        keys=(
            "data.log",
            "data.store",
            "data",
            "data.columns.user",
            "data.columns.item",
            "data.columns.timestamp",
            "data.columns.event_type",
            "data.event_types",
            "data.source.layout",
            "data.source.separator",
            "data.source.header",
            "data.source.time_unit",
            "data.deduplicate",
            "data.min_user_events",
            "data.min_item_events",
            "data.max_bad_fraction",
            "data.memory_gib",
            "data.spill_dir",
            "data.features.NAME.type",
            "data.append",
            "data.engine",
            "data.spark_master",
        ),
    ),
    "inspect": Verb(
        summary="show what is in a store",
        usage="STORE [--json] [key=value ...]",
        about="Counts, distributions, rejected rows by reason and a few histories of a store. Writes one picture.",
        options=(
            ("--json", "print JSON instead, and write no picture"),
            ("png", "the picture, where matplotlib is installed; empty: none  (STORE.png, beside the store)"),
            ("users", "histories that are shown  (3)"),
            ("version", "of the store; 0: the newest  (0)"),
            ("titles", "Parquet or CSV file with the titles of the items"),
            ("titles_item", "its column of raw item ids  (item_id)"),
            ("titles_title", "its column of titles  (title)"),
        ),
    ),
    "prune": Verb(
        summary="drop the versions of a store that nobody needs",
        usage="STORE [--dry-run]",
        about="Keeps the newest version and those that runs read, names them, and removes the files of the others.",
        options=(("--dry-run", "say what would be removed, and remove nothing"),),
    ),
    "train": Verb(
        summary="prepare where needed, then train, resuming by itself",
        usage="[key=value ...]",
        about="Prepares the store if it is not there, then trains; the same run_dir again resumes. Writes RUN_DIR.",
        keys=(
            "experiment",
            "run_dir",
            "scratch_dir",
            "data.store",
            "data.log",
            "data.split",
            "num_epochs",
            "num_steps",
            "hardware.num_ranks",
            "model",
            "model.embedding_dim",
            "model.num_blocks",
            "model.num_heads",
            "model.dropout",
            "model.precision",
            "loss",
            "optimizer.table",
            "evaluation.every_epochs",
            "evaluation.patience",
            "init_from",
            "train.target",
            "train.refit",
            "hardware.usd_per_device_hour",
            "checkpoint.every_steps",
            "sharding",
        ),
    ),
    "launch": Verb(
        summary="the same on a cluster: several machines, Slurm, Kubernetes",
        usage="[train|evaluate|recommend|export] cluster=NAME [--multirun] [--dry-run] [key=value ...]",
        about=(
            "Starts `shardrec train key=value ...`, or another verb, on a cluster. Writes RUN_DIR; the same command "
            "again resumes."
        ),
        options=(
            ("--dry-run", "print the batch script, the commands or the manifest; start nothing"),
            ("-m, --multirun", "every combination of keys with several values (seed=1,2), each in RUN_DIR/NUMBER"),
        ),
        keys=("cluster", *(key.name for key in cluster_keys()[1:])),
    ),
    "evaluate": Verb(
        summary="rank the whole catalogue with a run's best checkpoint",
        usage="run_dir=RUN_DIR [key=value ...]",
        about="Exact ranking of a run's best checkpoint against the baselines. Writes RUN_DIR/evaluation.json.",
        keys=(
            "run_dir",
            "data.store",
            "data.version",
            "checkpoint.use",
            "evaluation.leave_out_seen",
            "evaluation.batch_size",
            "hardware.num_ranks",
        ),
        notes="What is not set is the run's own. With data.store or data.version: on newer events, docs/daily.md",
    ),
    "export": Verb(
        summary="write a run's best model as a folder that needs nothing of this project",
        usage="run_dir=RUN_DIR [key=value ...]",
        about=(
            "Writes vectors, id maps, the encoder as a program and an example that runs with torch and safetensors "
            "alone. Measures the quality of what it wrote. Writes RUN_DIR/export: docs/export.md"
        ),
        keys=(
            "run_dir",
            "checkpoint.use",
            "export.output",
            "export.dtype",
            "export.examples",
            "export.onnx",
            "export.aot_inductor",
            "export.faiss",
            "export.mlflow",
            "evaluation.leave_out_seen",
            "hardware.num_ranks",
        ),
        notes="What is not set is the run's own.",
    ),
    "recommend": Verb(
        summary="the best items for users, or the nearest of each item, as a file",
        usage="run_dir=RUN_DIR [key=value ...]",
        about=(
            "Exact lists of a run's best checkpoint over the whole catalogue, with raw ids. Writes "
            "RUN_DIR/recommendations.parquet; the same command again after a kill continues. docs/recommend.md"
        ),
        keys=(
            "run_dir",
            "data.store",
            "data.version",
            "checkpoint.use",
            "recommend.what",
            "recommend.k",
            "recommend.output",
            "recommend.overwrite",
            "recommend.users",
            "recommend.histories",
            "recommend.history",
            "recommend.leave_out_seen",
            "recommend.unknown_ids",
            "recommend.user_column",
            "recommend.item_column",
            "recommend.allowed_items",
            "recommend.forbidden_items",
            "recommend.item_file",
            "recommend.item_columns",
            "recommend.where",
            "recommend.diverse_by",
            "recommend.max_per_value",
            "recommend.popular_days",
            "recommend.similarity",
            "recommend.batch_size",
            "hardware.num_ranks",
        ),
        notes="What is not set is the run's own. With data.store or data.version: by newer histories",
    ),
    "follow": Verb(
        summary="test, then train: go through a log by time, and say what updates are worth",
        usage="data.log=LOG run_dir=DIR [key=value ...]",
        about=(
            "Trains a first model, then scores each window of the log with the models of before and trains on it. "
            "Writes a table and a curve of quality to RUN_DIR; the same command again resumes: docs/follow.md"
        ),
        keys=(
            "data.log",
            "run_dir",
            *(key.name for key in run_keys() if key.name.startswith("follow.")),
            "num_epochs",
            "hardware.num_ranks",
            "hardware.usd_per_device_hour",
        ),
        notes="Keys of prepare (data.columns.user ...) and of train (model.embedding_dim ...) are taken too.",
    ),
    "serve": Verb(
        summary="answer requests for recommendations from an export, over HTTP",
        usage="export=EXPORT [--dry-run] [key=value ...]",
        about=(
            "Serves what `shardrec export` wrote until it is stopped: POST /recommend and /events, GET /health, "
            "/ready, /metrics and /docs. Needs `pip install 'shardrec[serve]'`. Writes EXPORT.events: docs/serve.md"
        ),
        options=(("--dry-run", "check the keys, and start nothing"),),
        keys=tuple(key.name for key in server_keys() if key.name not in ("config_dir", "serve")),
    ),
    "compare": Verb(
        summary="say which of several runs is better, and whether that is more than chance",
        usage="RUN RUN ... [key=value ...]",
        about=(
            "Differences of quality between runs, user by user, with 95 % intervals, p-values and what each run cost "
            "of the other: docs/compare.md"
        ),
        options=(
            ("metrics", "hr, ndcg, mrr, map, precision, recall or f1 at any cutoff, or mrr  (ndcg@10,hr@10)"),
            ("split", "test or valid: whose targets  (test)"),
            ("against", "first: each run against the first; all: every pair  (first)"),
            ("ranks", "run, or evaluation: those of the last `shardrec evaluate` of each run  (run)"),
            ("samples", "resamples of the users behind an interval  (1000)"),
            ("seed", "of the resamples  (0)"),
            ("output", "JSON file for all of it; empty: none"),
        ),
    ),
    "sweep": Verb(
        summary="every combination of keys with several values, and an index of quality and cost",
        usage="key=a,b,... sweep_dir=DIR [sweep.workers=N] [--dry-run] [key=value ...]",
        about=(
            "Trains every combination, several at once on this machine, each in a folder below DIR that is named "
            "after its values, and writes DIR/sweep.parquet, a row a run. The same command again continues; more "
            "values add runs. Without keys it indexes the runs that are in DIR: docs/sweep.md"
        ),
        options=(
            ("sweep_dir", "folder of the runs and of their index"),
            (
                "sweep.workers",
                "runs at once; auto: on a CPU as many as have a core for each rank, on GPUs one  (auto)",
            ),
            ("--dry-run", "print the folders of the runs, and start nothing"),
        ),
        notes='All keys of train are taken, with one value or several: seed=1,2,3 loss=bce,gbce "seed=range(5)".',
    ),
    "report": Verb(
        summary="one page over runs: what quality costs",
        usage="RUN ... | SWEEP [key=value ...]",
        about=(
            "Writes a page that needs nothing else (works offline and on a phone), a PNG and a JSON file: quality "
            "against dollars, what the next point costs, where time went, baselines and groups: docs/report.md"
        ),
        options=(
            ("output", "the page, FILE.html  (report.html, in the folder of one run or sweep)"),
            ("metric", "of the test events  (ndcg@10)"),
            ("cost", "usd, device_hours or kwh  (usd)"),
            ("title", "of the page"),
        ),
    ),
    "bench": Verb(
        summary="run one benchmark",
        usage="NAME [key=value ...]",
        about="Runs one benchmark. Writes benchmarks/results/NAME.json.",
        options=(
            ("stream", "needs data.store=STORE: store to batches; from 10 M events on it writes stream_large.json"),
            ("step", "needs data.store=STORE: a training step beside a plain padded one"),
            ("scaling", "needs data.store=STORE: a job of several ranks beside as many independent ones"),
            ("attention", "needs data.store=STORE: attention kernels side by side"),
            ("evaluate", "needs data.store=STORE: exact ranking of the whole catalogue"),
            ("recommend", "needs run_dir=RUN: users a second that the command `shardrec recommend` prints"),
            (
                "export",
                "needs run_dir=RUN: an export in each number format, its size and loss, its program's rate",
            ),
            ("checkpoint", "needs data.store=STORE: saving and loading; run_dir names the disk"),
            ("prepare", "needs nothing: logs to stores; data.log names a folder that keeps its two made-up logs"),
            ("warm_start", "needs data.store=STORE: a run begun from an old model beside one from scratch"),
            ("follow", "needs nothing: `shardrec follow` over a made-up log of 30 days, or over data.log"),
            ("serve", "needs export=EXPORT: requests through `shardrec serve`, beside a bare loop over the program"),
            ("loss", "needs nothing: the softmax over the whole catalogue"),
        ),
        notes="On a GPU (hardware=h100) the record is NAME_HARDWARE.json, such as step_h100.json; prepare uses none.",
    ),
    "doctor": Verb(
        summary="check this machine, and name the fix",
        usage="[key=value ...] [--json]",
        about=(
            "Checks whether this machine can train the run that the keys choose, and trains two steps on two ranks. "
            "A row a check: ok, warn or FAIL with the command that fixes it. Exit code 1 where one failed. Takes "
            "half a minute."
        ),
        keys=("hardware", "hardware.num_ranks", "run_dir", "data.store"),
        options=(
            ("doctor.nodes", "nodes that must see run_dir; asks Slurm for them  (those of the allocation, else 1)"),
            ("--json", "one JSON object on stdout and nothing else"),
        ),
    ),
    "completion": Verb(
        summary="print a script that completes verbs, keys and names in a shell",
        usage="bash | zsh | fish",
        about="Prints a script for a shell: verbs, keys and the names that keys take are completed with Tab.",
        options=(
            ("bash", "shardrec completion bash > ~/.local/share/bash-completion/completions/shardrec"),
            ("zsh", "shardrec completion zsh > a folder of $fpath, as _shardrec"),
            ("fish", "shardrec completion fish > ~/.config/fish/completions/shardrec.fish"),
        ),
    ),
}
"""Every verb, in the order in which help lists them."""


def general_help() -> str:
    """What ``shardrec --help`` prints."""
    lines = [_entry(name, verb.summary, 14) for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: shardrec VERB [key=value ...]",
            "",
            "From Parquet logs of interactions to a trained, exactly evaluated and priced recommender.",
            "",
            "verbs:",
            *lines,
            "",
            "shardrec VERB --help shows the keys that matter. Every key: docs/configuration.md",
            "Behind a verb, --config-dir PATH adds a folder of your own YAML files. shardrec --version",
            "says which version this is.",
        ]
    )


def verb_help(name: str) -> str:
    """What ``shardrec NAME --help`` prints."""
    verb = VERBS[name]
    parts = [f"usage: shardrec {name} {verb.usage}", textwrap.fill(verb.about, WIDTH)]
    parts.append("\n".join([*(_entry(*option) for option in verb.options), *_key_entries(verb.keys)]))
    parts += [textwrap.fill(verb.notes, WIDTH)] if verb.notes else []
    return "\n\n".join(filter(None, [*parts, "Every key: docs/configuration.md, or shardrec config --reference"]))


def described(key: Key) -> str:
    """The sentence of ``key``, with the names that it takes and its default."""
    is_listed = key.takes and key.takes != ("true", "false")
    names = f" [{' | '.join(key.takes)}]" if is_listed else ""
    return key.doc.replace("``", "") + names + (f"  ({key.default})" if key.default else "")


def _key_entries(names: Iterable[str]) -> Iterator[str]:
    """The keys of ``names`` in their order; those of one choice stand below its name."""
    keys: dict[str, list[Key]] = {}
    for key in [*run_keys(), *cluster_keys(), *server_keys()]:
        keys.setdefault(key.name, []).append(key)
    needs = ""
    # `export` is a key of `serve`, and a group of a run.
    plain = {name: [key for key in found if not key.is_group] or found for name, found in keys.items()}
    asked = [key for name in dict.fromkeys(names) for key in plain[name]]
    for key in _by_choice(asked):
        if key.needs != needs:
            needs = key.needs
            yield f"{needs}:" if needs else ""
        yield _entry(key.name, described(key))


def _by_choice(keys: list[Key]) -> list[Key]:
    """``keys`` with those of one choice together; what every choice has comes first."""
    order = list(dict.fromkeys(["", *(key.needs for key in keys)]))
    return sorted(keys, key=lambda key: order.index(key.needs))


def _entry(name: str, text: str, width: int = NAME_WIDTH) -> str:
    """A line, and further ones where it is long, of a name and what it means."""
    return textwrap.fill(
        f"{f'  {name}':<{width}}  {text}" if len(name) + 2 < width else f"  {name}  {text}",
        WIDTH,
        subsequent_indent=" " * (width + 2),
        break_on_hyphens=False,
        drop_whitespace=True,
    )
