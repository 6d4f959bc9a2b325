"""Checks of what torch sees: its libraries import, and the GPUs, their driver and NCCL work."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from configs.schema import HardwareConfig
from launch.doctor.answer import NOT_FOUND, Answer, answer_of, module_answer
from launch.doctor.row import Row, failed, good
from launch.doctor.software import install_command, reinstall_command, torch_cuda

PROBE_TIMEOUT_S = 60
"""The first import of torch from a cold network disk takes most of it."""
DRIVER_TIMEOUT_S = 15


@dataclass(frozen=True, slots=True)
class Seen:
    """What torch sees, and the rows that say so; nothing where a library does not import."""

    rows: list[Row]
    gpus: list[str] = field(default_factory=list)
    is_ready: bool = False
    """Whether torch, fbgemm and torchrec import."""


def look_at_devices(hardware: HardwareConfig) -> Seen:
    """Import the libraries in a process of its own, and ask the driver where there is or should be one."""
    answer = module_answer("train.doctor.probe", timeout_s=PROBE_TIMEOUT_S)
    lines = _json_lines(answer.output)
    imported = [line["imported"] for line in lines if "imported" in line]
    seen = next((line for line in lines if "gpus" in line), None)
    if answer.code or seen is None:
        row = _failed_import(answer, imported, hardware.device)
        return Seen([row, *_cuda_rows(hardware, None)])
    row = good("imports", f"{', '.join(imported)}; gloo {'is there' if seen['has_gloo'] else 'is missing'}")
    if not seen["has_gloo"]:
        row = failed("imports", "torch was built without gloo", install_command(hardware.device))
    return Seen([row, *_cuda_rows(hardware, seen)], gpus=list(seen["gpus"]), is_ready=bool(seen["has_gloo"]))


def _failed_import(answer: Answer, imported: list[str], device: str) -> Row:
    libraries = ("torch", "fbgemm_gpu", "torchrec")
    broken = next((name for name in libraries if name not in imported), "what torch sees")
    fix = install_command(device) if "ModuleNotFoundError" in answer.reason else reinstall_command(device)
    return failed("imports", f"{broken}: {answer.reason}", fix)


def _cuda_rows(hardware: HardwareConfig, seen: dict[str, Any] | None) -> Iterator[Row]:
    """A row where torch is a CUDA build, a GPU is wanted, or there is a driver; else one that says there is none."""
    driver = answer_of(["nvidia-smi"], timeout_s=DRIVER_TIMEOUT_S)
    is_wanted = hardware.device == "cuda"
    if driver.code == NOT_FOUND:
        if is_wanted:
            fix = "sudo apt-get install nvidia-driver   # or take the CPU: shardrec train ... hardware=cpu"
            yield failed("CUDA", "hardware.device=cuda, but there is no nvidia-smi: the driver is not installed", fix)
        else:
            built = (
                f"torch is built for CUDA {torch_cuda()}, which runs on the CPU too" if torch_cuda() else "CPU only"
            )
            yield good("CUDA", f"no driver, none wanted (hardware.device=cpu); {built}")
        return
    yield _driver_row(driver, is_wanted)
    if seen is not None and is_wanted and not driver.code:
        yield _gpu_row(hardware, seen, _driver_cuda(driver))


def _driver_row(driver: Answer, is_wanted: bool) -> Row:
    if driver.code:
        reason = (driver.output + driver.error).strip().splitlines()
        told = f"nvidia-smi: {reason[0] if reason else driver.reason}"
        if not is_wanted:
            return good("CUDA driver", f"{told}; not wanted (hardware.device=cpu)")
        is_mismatch = "mismatch" in told.lower()
        fix = (
            "sudo reboot"
            if is_mismatch
            else "sudo modprobe nvidia && nvidia-smi   # then, if it still fails: sudo reboot"
        )
        return failed("CUDA driver", told, fix)
    match = re.search(r"Driver Version:\s*([\d.]+)", driver.output)
    number = match.group(1) if match else "of unknown version"
    return good("CUDA driver", f"{number}, for CUDA up to {_driver_cuda(driver) or '?'}")


def _driver_cuda(driver: Answer) -> str:
    match = re.search(r"CUDA Version:\s*([\d.]+)", driver.output)
    return match.group(1) if match else ""


def _gpu_row(hardware: HardwareConfig, seen: dict[str, Any], driver_cuda: str) -> Row:
    gpus, built = seen["gpus"], seen["cuda"]
    if not built:
        return failed("GPUs", "torch is a CPU build", install_command("cuda"))
    if not seen["is_cuda_usable"]:
        found = f"torch (CUDA {built}) sees no GPU; the driver serves CUDA up to {driver_cuda or '?'}"
        fix = "echo $CUDA_VISIBLE_DEVICES; unset CUDA_VISIBLE_DEVICES   # it hides devices"
        if driver_cuda and _numbers(driver_cuda) < _numbers(built)[:1]:
            fix = f"sudo apt-get install --only-upgrade nvidia-driver   # to one that serves CUDA {built}"
        return failed("GPUs", found, fix)
    found = f"{len(gpus)} x {gpus[0]}; torch for CUDA {built}, NCCL {seen['nccl'] or 'is missing'}"
    if hardware.num_ranks > len(gpus):
        fix = f"shardrec train ... hardware.num_ranks={len(gpus)}"
        return failed("GPUs", f"{found}; hardware.num_ranks={hardware.num_ranks} needs one each", fix)
    if not seen["nccl"]:
        return failed("GPUs", found, install_command("cuda"))
    return good("GPUs", found)


def _numbers(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))


def _json_lines(output: str) -> list[dict[str, Any]]:
    """The lines that are JSON objects; libraries may print others between them."""
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
