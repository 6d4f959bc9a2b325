"""Requests a second and their times through `shardrec serve`, beside a bare loop over the exported program.

``shardrec bench serve export=EXPORT [serve.threads=2 ...]``: 32 connections, each with the next request after its
last answer, histories of 200 drawn items, ten wanted. Server, load and loop are processes of their own; the loop
takes batches of as many histories and finds the best items too. The last load lasts over three reloads.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.harness import interleaved, paired_ratio, spread_of, write_result
from benchmarks.serve_load import CONNECTIONS
from configs.errors import ConfigError
from configs.load import load_server
from configs.schema.serve import ServerConfig

LENGTH, NUM_HISTORIES, NUM_ROUNDS, ROUND_S = 200, 512, 3, 4.0
NUM_RELOADS = 3
Found = dict[str, Any]


def main(overrides: list[str]) -> None:
    """Write ``results/serve.json``."""
    config = load_server(overrides)
    if not config.export:
        raise ConfigError("the serve benchmark needs export=EXPORT, a folder that `shardrec export` wrote")
    histories = _histories(Path(config.export))
    loads: list[Found] = []

    def served() -> float:
        loads.append(_load(url, histories))
        return len(loads[-1]["seconds"]) / ROUND_S

    with _server(overrides) as url:
        rates = interleaved({"served": served, "bare_loop": lambda: _bare_rate(config)}, NUM_ROUNDS)
        reloaded = _reloaded(url, histories)
    times = [np.percentile(each["seconds"], [50, 99]) * 1000 for each in loads[1:]]
    figures = {
        "requests_per_s": spread_of(rates["served"]),
        "p50_ms": spread_of([float(p50) for p50, _ in times]),
        "p99_ms": spread_of([float(p99) for _, p99 in times]),
        "bare_loop.histories_per_s": spread_of(rates["bare_loop"]),
        "served_to_bare_loop": paired_ratio(rates["served"], rates["bare_loop"]),
        "reload.p99_ms": spread_of([float(np.percentile(reloaded["seconds"], 99)) * 1000]),
    }
    notes = {
        "connections": CONNECTIONS,
        "history": LENGTH,
        "failed": sum(each["failed"] for each in loads),
        "reloads": NUM_RELOADS,
        "failed_in_reloads": reloaded["failed"],
    }
    write_result("serve", overrides, figures, notes)
    print(f"failed requests: {notes['failed']}, in {NUM_RELOADS} reloads: {notes['failed_in_reloads']}")


def _histories(folder: Path) -> str:
    """A line for each."""
    if features := json.loads((folder / "model.json").read_bytes())["features"]:
        raise ConfigError(
            f"export={folder}: the model reads {', '.join(features)} of each event, and histories of this benchmark "
            f"have items alone; name an export of a run with model.event_features=[]"
        )
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
    draw = np.random.default_rng(0)
    drawn = draw.integers(0, len(lines), (NUM_HISTORIES, LENGTH))
    return "".join(f"[{','.join(lines[row] for row in rows)}]\n" for rows in drawn)


@contextmanager
def _server(overrides: list[str]) -> Iterator[str]:
    """The address of a server that is ready; it is stopped afterwards."""
    command = [sys.executable, "-m", "launch", "serve", *overrides, "serve.port=0", "serve.events=none"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        text = ""
        for line in process.stderr:
            text += line
            if "ready: " in line:
                break
        else:
            raise ConfigError(f"the server did not start: {text}")
        yield re.findall(r"http://[0-9.:]+", text)[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _load(url: str, histories: str, seconds: float = ROUND_S) -> Found:
    found = subprocess.run(
        _load_command(url, seconds), input=histories, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    loaded: Found = json.loads(found)
    return loaded


def _load_command(url: str, seconds: float) -> list[str]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    return [sys.executable, "-m", "benchmarks.serve_load", host, port, str(seconds)]


def _reloaded(url: str, histories: str) -> Found:
    """A load during which the export is loaded again and again."""
    process = subprocess.Popen(
        _load_command(url, 2 * ROUND_S), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(histories)
    process.stdin.close()
    for _ in range(NUM_RELOADS):
        time.sleep(1)
        urllib.request.urlopen(urllib.request.Request(f"{url}/reload", b"")).close()
    assert process.stdout is not None
    found: Found = json.loads(process.stdout.read())
    process.wait()
    return found


def _bare_rate(config: ServerConfig) -> float:
    """Histories a second of :func:`bare_loop`, in a process of its own."""
    program = (
        f"from benchmarks.bench_serve import bare_loop; print(bare_loop({config.export!r}, {config.serve.threads}))"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


@torch.no_grad()
def bare_loop(export: str, threads: int) -> float:
    """Histories a second through the program and the search for the best ten, in batches, without a server."""
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) - 1))
    program = torch.export.load(Path(export, "encoder.pt2")).module()
    table = load_file(Path(export, "item_vectors.safetensors"))
    vectors = table["item_vectors"].float() * table.get("scale", torch.ones(1))[:, None]
    rows = torch.randint(len(vectors), (CONNECTIONS, LENGTH), generator=torch.Generator().manual_seed(0))
    lengths = torch.full((CONNECTIONS,), LENGTH)

    def best() -> torch.Tensor:
        score = program(item_vectors=vectors[rows], lengths=lengths) @ vectors.t()
        return score.scatter(1, rows, float("-inf")).topk(10).indices

    best()
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < ROUND_S:
        best()
        count += CONNECTIONS
    return count / elapsed
