"""Runs every check in order, shows each row as it comes, and says how it ended."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from launch.doctor import disk, limits, network, slurm, software
from launch.doctor.devices import look_at_devices
from launch.doctor.row import Mark, Row, failed
from launch.doctor.sharded_step import check_sharded_step, not_run
from launch.doctor.subject import Subject, subject_of
from launch.doctor.table import head, lines_of

JSON_FLAG = "--json"


def examine(words: Sequence[str]) -> int:
    """Examine this machine for the run that ``words`` choose; 0, or 1 where a check failed.

    Prints a table, or with ``--json`` one object and nothing else. Raises :class:`ConfigError` for a wrong key.
    """
    subject = subject_of([word for word in words if word != JSON_FLAG])
    start = time.monotonic()
    if JSON_FLAG in words:
        rows = list(rows_of(subject))
        print(json.dumps(_report(rows, time.monotonic() - start), indent=2))
    else:
        rows = _shown(subject)
        print(f"\n{_verdict(rows)} ({time.monotonic() - start:.0f} s)")
    return int(any(row.mark is Mark.FAIL for row in rows))


def rows_of(subject: Subject) -> Iterator[Row]:
    """Every check's row, in order; the last one, the sharded step, takes most of the time."""
    hardware, run = subject.here, subject.config
    yield subject.row
    if platform.system() != "Linux":
        fix = "docker run -it --shm-size=8g python:3.12 bash   # a Linux on this machine"
        yield failed("system", f"{platform.system()}: fbgemm is built for Linux alone", fix)
        return
    yield from software.check_software(hardware.device)
    seen = look_at_devices(hardware)
    yield from seen.rows
    yield (host := network.check_host_name(subject.num_nodes))
    yield network.check_gloo(subject.num_nodes)
    yield limits.check_open_files(hardware, subject.num_nodes)
    yield limits.check_processes(hardware)
    yield limits.check_locked_memory()
    yield limits.check_shared_memory(hardware)
    yield limits.check_memory(hardware)
    yield limits.check_cores(hardware)
    yield limits.check_kernel_caches()
    yield disk.check_run_dir(run)
    yield disk.check_store(run)
    yield slurm.check_slurm()
    yield slurm.check_shared_folder(run.run_dir, subject.num_nodes)
    if not seen.is_ready:
        yield not_run("the libraries do not import", software.install_command(hardware.device))
    elif host.mark is Mark.FAIL:
        yield not_run("the ranks would wait for the host's name to resolve", host.fix)
    else:
        yield check_sharded_step(hardware, seen.gpus)


def _shown(subject: Subject) -> list[Row]:
    is_coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(head())
    rows = []
    for row in rows_of(subject):
        print("\n".join(lines_of(row, is_coloured=is_coloured)), flush=True)
        rows.append(row)
    return rows


def _verdict(rows: Sequence[Row]) -> str:
    counts = {mark: sum(row.mark is mark for row in rows) for mark in Mark}
    told = f"{counts[Mark.OK]} ok, {counts[Mark.WARN]} warn, {counts[Mark.FAIL]} FAIL"
    return f"{told}: {'fix what failed, then ask again' if counts[Mark.FAIL] else 'this machine can train'}"


def _report(rows: Sequence[Row], seconds: float) -> dict[str, object]:
    return {
        "passed": not any(row.mark is Mark.FAIL for row in rows),
        "duration_s": round(seconds, 1),
        "checks": [asdict(row) for row in rows],
    }
