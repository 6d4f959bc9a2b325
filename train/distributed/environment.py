"""What the environment of a rank must and must not say: looked at before a group is made, told in one line."""

import os
import socket

import torch

from configs.errors import ConfigError
from configs.schema import HardwareConfig

LOOPBACK_INTERFACES = ("lo", "lo0")
"""Of Linux, of macOS."""


def check_environment(config: HardwareConfig, num_local_ranks: int) -> None:
    """Raise :class:`ConfigError` for what would end every rank of this machine: a debugging aid that crashes, a
    network interface or a GPU that is not there."""
    if os.environ.get("TORCH_DISTRIBUTED_DEBUG", "").upper() == "DETAIL":
        raise ConfigError(
            "TORCH_DISTRIBUTED_DEBUG=DETAIL ends training with a segmentation fault inside torch 2.13 "
            "(DistributedDataParallel); set it to INFO, or unset it"
        )
    _check_warnings(os.environ.get("PYTHONWARNINGS", ""))
    for name in ("GLOO_SOCKET_IFNAME", *(["NCCL_SOCKET_IFNAME"] if config.device == "cuda" else [])):
        _check_interfaces(name, os.environ.get(name, ""))
    if config.device == "cuda":
        _check_gpus(config, num_local_ranks)


def _check_warnings(filters: str) -> None:
    """``error`` for all modules: torch, fbgemm and torchrec warn while they are imported."""
    for each in filters.split(","):
        action, _, others = each.strip().partition(":")
        is_for_one_module = others.count(":") >= 2 and others.split(":")[2].strip()
        if action and "error".startswith(action) and not is_for_one_module:
            raise ConfigError(
                f"PYTHONWARNINGS={filters} turns warnings of torch and fbgemm into errors that end training; name "
                f"your module in it, as in error:::my_module, or unset it"
            )


def use_loopback() -> None:
    """Let this process, whose job is on one machine, listen on loopback alone unless an interface was chosen."""
    here = {name for _, name in socket.if_nameindex()}
    for interface in LOOPBACK_INTERFACES:
        if interface in here:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _check_interfaces(name: str, value: str) -> None:
    """``value``: interfaces by comma; NCCL's may begin with ``^`` (all but these) or ``=``, or be prefixes."""
    if not value or value.startswith("^"):
        return
    here = sorted(interface for _, interface in socket.if_nameindex())
    is_prefix = name.startswith("NCCL") and not value.startswith("=")
    for each in value.lstrip("=").split(","):
        interface = each.partition(":")[0]
        if not any(found.startswith(interface) if is_prefix else found == interface for found in here):
            raise ConfigError(f"{name}={value}: this machine has no interface {interface}, only {', '.join(here)}")


def _check_gpus(config: HardwareConfig, num_local_ranks: int) -> None:
    told = f"hardware.device=cuda (hardware={config.name})"
    if not torch.backends.cuda.is_built():
        raise ConfigError(
            f"{told}: this torch, {torch.__version__}, is built without CUDA; install torch, fbgemm-gpu and torchrec "
            f"for CUDA (docs/gpus.md), or set hardware=cpu"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"{told}: torch sees no GPU on this machine; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set "
            f"hardware=cpu"
        )
    if (found := torch.cuda.device_count()) < num_local_ranks:
        raise ConfigError(
            f"{told}: {num_local_ranks} ranks on this machine need a GPU each, and torch sees {found}; lower "
            f"hardware.num_ranks"
        )
