"""Energy is that of the counters of a machine, which may start again at zero, or is not measured at all."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from train.accounting import energy
from train.accounting.energy import NvmlMeter, RaplMeter, meter_of, rapl_files

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, one of which has a part with a counter of its own."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl"):
        (tmp_path / name).mkdir()
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        (tmp_path / name / "energy_uj").write_text("999000000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path


def test_processors_are_counted_over_the_end_of_their_counters(powercap: Path):
    meter = meter_of(CPU, local_rank=0)
    assert meter is not None
    (powercap / "intel-rapl:0" / "energy_uj").write_text("2000000\n")  # 3 J later
    (powercap / "intel-rapl:1" / "energy_uj").write_text("999500000\n")
    assert meter.joules() == pytest.approx(3.5)
    (powercap / "intel-rapl:0" / "energy_uj").write_text("5000000\n")
    assert meter.joules() == pytest.approx(6.5)
    assert meter.source == "rapl"


def test_the_processors_of_a_machine_are_counted_by_one_of_its_ranks(powercap: Path):
    other = meter_of(CPU, local_rank=1)
    assert isinstance(other, RaplMeter)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("999500000\n")
    assert other.joules() == 0


def test_a_machine_without_counters_measures_nothing(powercap: Path, monkeypatch: pytest.MonkeyPatch):
    (powercap / "intel-rapl:1" / "energy_uj").unlink()  # as one that may not be read
    assert rapl_files() == []
    assert meter_of(CPU, local_rank=0) is None
    monkeypatch.setattr(energy, "POWERCAP", powercap / "missing")
    assert meter_of(CPU, local_rank=0) is None


class Nvml:
    """pynvml, of one GPU that counts millijoules."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, is_able: bool = True) -> None:
        self.total_mj, self.is_able = 5_000, is_able

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        assert uuid == "GPU-1234"
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.is_able:
            raise self.NVMLError
        return self.total_mj


@pytest.mark.parametrize("is_able", [True, False])
def test_a_gpu_is_counted_where_it_counts(is_able: bool, monkeypatch: pytest.MonkeyPatch):
    nvml: Any = Nvml(is_able)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    meter = meter_of(GPU, local_rank=3)
    if not is_able:
        assert meter is None
        return
    assert isinstance(meter, NvmlMeter)
    nvml.total_mj += 7_000
    assert meter.joules() == pytest.approx(7)
    nvml.is_able = False
    assert meter.joules() == pytest.approx(7), "it must not end a run that it stops counting"


def test_without_pynvml_a_gpu_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert meter_of(GPU, local_rank=0) is None
