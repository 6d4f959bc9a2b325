"""Checks of Python and of what pip installed, by its records alone: nothing of it is imported here."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from configs.process_environment import ROOT
from launch.doctor.row import Row, doubtful, failed, good

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 11)
"""Those that Shardrec was tried on (`requires-python` of `pyproject.toml`)."""
PINNED = ("2.13.0", "1.8.0", "1.8.0")
"""torch, fbgemm-gpu and torchrec of `pyproject.toml` and `tools/fbgemm_shim`."""
TRIPLES = {
    "2.11": ("1.6.0", "1.6.1"),
    "2.12": ("1.7.0", "1.7.0"),
    "2.13": ("1.8.0", "1.8.0"),
    "2.14": ("1.9.0", "1.9"),
}
"""Release of torch: the fbgemm and torchrec that were built for it. Others load and fail later, or not at all."""
OTHERS = (
    "hydra-core",
    "pyarrow",
    "polars",
    "numpy",
    "tensorboard",
    "xxhash",
    "safetensors",
    "rich",
    "jinja2",
    "markupsafe",
)
HYDRA = ((1, 3, 6), (1, 5))
"""From, below: earlier ones run code of a configuration (GHSA-37p2-j732-x8pj)."""


def check_software(device: str) -> Iterator[Row]:
    """Python, the triple for ``device``, and the other packages."""
    yield check_python()
    yield check_triple(device)
    yield check_others()


def check_python() -> Row:
    """Whether this Python is new enough, and not newer than what was tried."""
    found = f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    newest, oldest = (".".join(map(str, number)) for number in (NEWEST_PYTHON, OLDEST_PYTHON))
    if tuple(sys.version_info[:2]) > NEWEST_PYTHON:
        fix = f"cd {shlex.quote(str(ROOT))} && rm -rf .venv && make setup PYTHON=python{newest}"
        return doubtful("Python", f"{found} is newer than {newest}, the newest that was tried", fix)
    if tuple(sys.version_info[:2]) >= OLDEST_PYTHON:
        return good("Python", found)
    fix = f"cd {shlex.quote(str(ROOT))} && rm -rf .venv && make setup PYTHON=python{oldest}"
    return failed("Python", f"{found} is older than {oldest}", fix)


def check_triple(device: str) -> Row:
    """Whether torch, fbgemm and torchrec were made for each other, and for ``device``."""
    name = "torch triple"
    torch, torchrec = installed_version("torch"), installed_version("torchrec")
    gpu, cpu = installed_version("fbgemm-gpu"), installed_version("fbgemm-gpu-cpu")
    is_stand_in = gpu.endswith("+cpu")  # tools/fbgemm_shim
    is_cpu_build = is_stand_in or not gpu
    fbgemm_name, fbgemm = ("fbgemm-gpu-cpu", cpu) if is_cpu_build else ("fbgemm-gpu", gpu)
    parts = {"torch": torch, fbgemm_name: fbgemm, "torchrec": torchrec}
    found = ", ".join(f"{part} {number}" for part, number in parts.items() if number)
    missing = [part for part, number in parts.items() if not number]
    fix = install_command(device)
    if missing:
        return failed(name, f"not installed: {', '.join(missing)}{f'; there: {found}' if found else ''}", fix)
    if gpu and cpu and not is_stand_in:
        fix = f"{pip()} uninstall -y fbgemm-gpu fbgemm-gpu-cpu && {fix}"
        return failed(name, f"fbgemm-gpu {gpu} and fbgemm-gpu-cpu {cpu} are written over each other", fix)
    wanted = TRIPLES.get(".".join(torch.split(".")[:2]))
    if wanted is None:
        return failed(name, f"{found}: no fbgemm is known to match this torch", fix)
    if not all(map(_is_release, (fbgemm, torchrec), wanted)):
        return failed(name, f"{found} do not match: this torch needs fbgemm {wanted[0]}, torchrec {wanted[1]}", fix)
    if device == "cuda" and (is_cpu_build or not torch_cuda()):
        part = "fbgemm" if torch_cuda() else "torch"
        fix = f"{pip()} uninstall -y torch fbgemm-gpu fbgemm-gpu-cpu torchrec && {fix}"
        return failed(name, f"{found}: hardware.device=cuda, but {part} is a CPU build", fix)
    if not all(map(_is_release, (torch, fbgemm, torchrec), PINNED)):
        return doubtful(name, f"{found} match, but Shardrec is tested with torch {PINNED[0]}", fix)
    return good(name, f"{found} match")


def check_others() -> Row:
    """Whether the other packages are there, and a Hydra without its known hole."""
    versions = {name: installed_version(name) for name in OTHERS}
    found = ", ".join(f"{name} {number or '-'}" for name, number in versions.items())
    missing = [name for name, number in versions.items() if not number]
    if missing:
        return failed("packages", f"{', '.join(missing)} not installed", f"{pip()} install {' '.join(missing)}")
    if not HYDRA[0] <= _numbers(versions["hydra-core"]) < HYDRA[1]:
        oldest, below = (".".join(map(str, bound)) for bound in HYDRA)
        fix = f"{pip()} install 'hydra-core>={oldest},<{below}'"
        return failed("packages", f"hydra-core {versions['hydra-core']} is not in [{oldest}, {below})", fix)
    return good("packages", found)


def installed_version(name: str) -> str:
    """The version that pip has recorded for ``name``; empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def torch_cuda() -> str:
    """The CUDA that torch was built with, read from its files: `13.0`; empty for a CPU build and without torch."""
    spec = importlib.util.find_spec("torch")
    origin = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if origin is None or not origin.is_file():
        return ""
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)", origin.read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1) if match else ""


def install_command(device: str = "cpu") -> str:
    """The one pip command that installs the pinned triple for ``device``, and this project."""
    torch, fbgemm, torchrec = PINNED
    stand_in = ROOT / "tools" / "fbgemm_shim"
    is_cpu = device == "cpu" and stand_in.is_dir()
    middle = shlex.quote(str(stand_in)) if is_cpu else f"fbgemm-gpu=={fbgemm}"
    command = f"{pip()} install torch=={torch} {middle} torchrec=={torchrec}"
    return f"{command} -e {shlex.quote(str(ROOT))}" if (ROOT / "pyproject.toml").is_file() else command


def reinstall_command(device: str) -> str:
    """:func:`install_command` for files that are there and do not work."""
    return install_command(device).replace(" install ", " install --force-reinstall --no-cache-dir ", 1)


def pip() -> str:
    """pip of the Python that runs this, which need not be the first on the PATH."""
    return f"{shlex.quote(sys.executable or 'python3')} -m pip"


def _is_release(number: str, wanted: str) -> bool:
    plain = number.partition("+")[0]
    return plain == wanted or plain.startswith(f"{wanted}.")


def _numbers(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", number)[:3])
