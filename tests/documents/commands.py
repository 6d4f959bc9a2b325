"""What the commands of the documents mean in a test: each runs, with what it names made small, or dry.

Linked under the names of the programs that a page calls. A program without a meaning here is not found, and fails its
page.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
from polars import selectors as cs

ROOT = Path(os.environ["SHARDREC_ROOT"])
SANDBOX = Path(os.environ["SHARDREC_SANDBOX"])
SMALL = [
    "model.embedding_dim=8",
    "model.num_blocks=1",
    "model.num_heads=1",
    "hardware.num_ranks=1",
    "num_steps=2",
]
"""The size of every model that is trained here."""
WITHOUT_BLOCKS = ("dot", "sigmoid_linear")
"""Models that have no blocks or heads."""
FAR = ("s3://", "gs://", "hdfs://")
DRY_VERBS = ("config", "doctor", "bench")
"""Verbs that are composed only: tests of their own run them, and they take long or do not end."""


def main() -> int:
    """Run the program under whose name this file was called."""
    name, words = os.environ["SHARDREC_PROGRAM"], sys.argv[1:]
    if name == "shardrec":
        return shardrec(words)
    if name in ("torchrun", "spark-submit"):
        return composed([word for word in words if "=" in word and not word.startswith("-")])
    if name in ("salloc", "srun"):
        rest = list(words)
        while rest[0].startswith("-"):
            rest.pop(0)
        return subprocess.run(rest, check=False).returncode
    if name == "make":
        return subprocess.run(
            ["/usr/bin/make", "-n", "-C", str(ROOT), *words], stdout=subprocess.DEVNULL, check=False
        ).returncode
    if name == "pip":
        return pip(words)
    if name == "kubectl":
        return 0 if "apply" not in words or sys.stdin.read() else 1
    return 0  # docker, git, apt-get and their like: nothing of ours can be wrong in them


def shardrec(words: list[str]) -> int:
    """The verb itself where it can run here, else its configuration."""
    words = [f"config_dir={word}" if words[at - 1] == "--config-dir" else word for at, word in enumerate(words)]
    verb, *rest = words = [word for word in words if word != "--config-dir"]
    if any(word in ("-h", "--help", "--version") for word in words):
        return real(words)
    keys = dict(word.split("=", 1) for word in rest if "=" in word and not word.startswith("-"))
    if verb == "serve":
        return real([*words, "--dry-run"])
    if verb == "launch":
        if rest[0] in ("evaluate", "export"):
            provide(rest[0], keys, rest)
        return real([*words, *([] if "--dry-run" in words else ["--dry-run"])])
    is_far = any(value.startswith(FAR) for value in keys.values()) or keys.get("hardware") == "h100"
    if is_far or verb in DRY_VERBS or "experiment" in keys:
        return composed([word for word in rest if "=" in word and not word.startswith("doctor.")])
    if verb == "prepare" and ("data" in keys or keys.get("data.engine") == "spark"):
        return composed(rest)  # a ready-made source has a test of its own, and Spark a suite
    provide(verb, keys, rest)
    if verb in ("train", "follow") or (verb == "sweep" and len(keys) > 1):
        small = [
            word for word in SMALL if keys.get("model") not in WITHOUT_BLOCKS or not word.startswith("model.num_")
        ]
        if verb == "sweep":  # what a page sweeps stays swept
            small = [word for word in small if word.partition("=")[0] not in keys]
        return real([*words, *small, *here(keys)])
    return real([*words, *here(keys)])


def provide(verb: str, keys: dict[str, str], rest: list[str]) -> None:
    """Make what a page takes for granted: the log that it names, the store, the run."""
    if "data.log" in keys:
        write_log(keys)
    if "data.items" in keys:
        write_items(keys)
    if "evaluation.user_file" in keys:
        pl.DataFrame({"user_id": range(40), "gender": ["f", "m"] * 20, "age": range(40)}).write_csv(
            inside(keys["evaluation.user_file"])
        )
    store = keys.get("data.store", "")
    if verb in ("inspect", "prune"):
        store = next((word for word in rest if "=" not in word and not word.startswith("-")), "")
    needs_store = verb in ("train", "sweep", "inspect", "prune") or keys.get("data.append") == "true"
    if needs_store and store and not (inside(store) / "manifest.json").exists() and "data.log" not in keys:
        assert shardrec(["prepare", "data.log=provided/events.parquet", f"data.store={store}"]) == 0
    if needs_store and keys.get("data.append") == "true" and not (inside(store) / "manifest.json").exists():
        assert shardrec(["prepare", "data.log=provided/first.parquet", f"data.store={store}"]) == 0
    if verb in ("compare", "report"):
        for run in [word for word in rest if "=" not in word]:
            provide("evaluate", {"run_dir": run}, [])
    run_dir = keys.get("run_dir", "")
    if verb in ("evaluate", "recommend", "export") and not (inside(run_dir) / "summary.json").exists():
        assert shardrec(["train", "data.store=provided/store", f"run_dir={run_dir}"]) == 0


def write_log(keys: dict[str, str]) -> None:
    """400 events at ``data.log``, under the names of columns that the command gives; no other than its own day's."""
    path = inside(keys["data.log"])
    if path.exists() or "*" in path.name:
        return
    draw = np.random.default_rng(sum(keys["data.log"].encode()))
    columns = {
        keys.get("data.columns.user", "user_id"): draw.integers(0, 40, 400),
        keys.get("data.columns.item", "item_id"): draw.integers(0, 30, 400),
        keys.get("data.columns.timestamp", "timestamp"): np.sort(draw.integers(1.6e12, 1.7e12, 400)),
        "event_type": draw.choice(["view", "addtocart", "transaction"], 400),
        "category": draw.choice(["a", "b"], 400),
        "price": draw.random(400),
        "rating": draw.integers(1, 6, 400),
    }
    file = path / "part-0.parquet" if not path.suffix else path
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({name: values for name, values in columns.items() if name})
    layout = keys.get("data.source.layout")
    if layout == "history_lines":
        users = frame.group_by(cs.first(), maintain_order=True).agg(cs.by_index(1)).iter_rows()
        file.write_text("".join(f"{user} {' '.join(map(str, items))}\n" for user, items in users))
    elif layout == "delimited":
        frame[:, :2].write_csv(file, include_header=False, separator=" ")
    elif file.suffix == ".csv":
        frame.write_csv(file)
    else:
        frame.write_parquet(file)


def write_items(keys: dict[str, str]) -> None:
    """The 30 items of a log at ``data.items``, with lists of categories under the names that the command gives."""
    names = [value for key, value in keys.items() if re.fullmatch(r"data\.item_features\.\w+\.column", key)]
    path = inside(keys["data.items"])
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [[item % 3, 3 + item % 5] for item in range(30)] for name in names}
    pl.DataFrame({keys.get("data.items_column", "item_id"): range(30), **columns}).write_parquet(path)


def here(keys: dict[str, str]) -> list[str]:
    """Absolute paths of a page, moved into the sandbox."""
    return [f"{key}={inside(value)}" for key, value in keys.items() if value.startswith("/")]


def inside(path: str) -> Path:
    """Where ``path`` of a page lies in the sandbox."""
    return SANDBOX / path.lstrip("/") if path.startswith("/") else Path(path)


def composed(overrides: list[str]) -> int:
    """Compose the run alone: every key, group and bound is checked."""
    return real(["config", *overrides], quiet=True)


def real(words: list[str], quiet: bool = False) -> int:
    """The program itself."""
    command = [sys.executable, "-m", "launch", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE if quiet else None, check=False)
    if done.returncode:
        print(f"exit {done.returncode}: shardrec {shlex.join(words)}", file=sys.stderr)
    return done.returncode


def pip(words: list[str]) -> int:
    """The versions and extras that a page installs are those of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {each.split("==")[0]: each for each in project["dependencies"] if "==" in each}
    extras = set(project["optional-dependencies"])
    wrong = [word for word in words if "==" in word and pinned.get(word.split("==")[0], word) != word]
    asked = [word.partition("[")[2].rstrip("]") for word in words if word.startswith((".[", "shardrec["))]
    wrong += [extra for each in asked for extra in each.split(",") if extra not in extras]
    if wrong:
        print(json.dumps({"not the project's": wrong}), file=sys.stderr)
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
