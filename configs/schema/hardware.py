"""The devices of a run and what they cost."""

from dataclasses import dataclass
from typing import Any

from configs import machine
from configs.bounds import SECONDS, check_bounds
from configs.errors import require

USD_OF_CPU, WATTS_OF_CPU = 0.05, 20.0
USD_OF_GPU, WATTS_OF_GPU = 3.0, 700.0
"""Assumptions, no quotes; the power is the rated limit of an H100's SXM board."""
ASSUMPTION, ASSUMED_ON = "an assumption, no quote", "2026-11-29"
OWN_PRICE = "hardware.usd_per_device_hour, as it was set for the run"


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The devices of one machine and what they cost; ``num_ranks`` processes, one device each."""

    name: str = "cpu"
    """Name of the device in records and summaries."""
    device: str = "auto"
    """Where tensors live: cpu, cuda, or auto: a GPU where there is one and torch is built for it."""
    num_ranks: int = 0
    """Processes of the whole job, one device each; auto, or 0: one a GPU, or one a core of the CPU up to 8."""
    num_threads: int = 0
    """Threads of each process for arithmetic on the CPU; auto, or 0: enough that all ranks fill the cores."""
    micro_batches: int = 1
    """Parts into which each process cuts its share of a step, one after the other, so that activations take less
    memory (gradient accumulation); the weights are updated once, with the gradients of the whole batch."""
    usd_per_device_hour: float = USD_OF_CPU
    """Price of one device for one hour, from which the cost of a run is computed."""
    watts_per_device: float = WATTS_OF_CPU
    """Power that one device draws, from which the energy of a run is computed where it is not measured."""
    listed_usd_per_device_hour: float = USD_OF_CPU
    """Price that ``hardware.price_source`` states; another ``hardware.usd_per_device_hour`` is your own price."""
    price_source: str = ASSUMPTION
    """Where the listed price is from."""
    price_date: str = ASSUMED_ON
    """When the listed price was read there."""
    peak_tflops_per_device: float = 0.0
    """Most TFLOP/s of one device in the number format of training, of which a run's utilisation (MFU) is a share;
    0: it is measured at each start, by large matrix products."""
    timeout_s: int = 300
    """Seconds without progress after which the ranks are taken to hang and end."""

    def __post_init__(self) -> None:
        require(
            self.device in ("auto", "cpu", "cuda"),
            f"hardware.device={self.device} is unknown; set it to auto, cpu or cuda",
        )
        self._take_from_the_machine()
        check_bounds(
            "hardware.",
            self,
            num_ranks=(1, 2**16),
            num_threads=(1, 1024),
            micro_batches=(1, 2**16),
            usd_per_device_hour=(0, 1e6),
            watts_per_device=(0, 1e6),
            listed_usd_per_device_hour=(0, 1e6),
            peak_tflops_per_device=(0, 1e9),
            timeout_s=(1, SECONDS),
        )

    @property
    def price(self) -> dict[str, Any]:
        """What a device-hour costs, and who says so when."""
        if self.usd_per_device_hour == self.listed_usd_per_device_hour:
            source, date = self.price_source, self.price_date
        else:
            source, date = OWN_PRICE, ""
        return {"usd_per_device_hour": self.usd_per_device_hour, "source": source, "date": date}

    def _take_from_the_machine(self) -> None:
        """What is left to the machine, as it is here; a run keeps what was found where it was started."""
        if self.device == "auto":
            self.device = "cuda" if machine.num_gpus() else "cpu"
            if self.device == "cuda" and self.name == "cpu":
                self.name = "gpu"
                is_priced = (self.usd_per_device_hour, self.watts_per_device) != (USD_OF_CPU, WATTS_OF_CPU)
                if not is_priced:
                    self.usd_per_device_hour, self.watts_per_device = USD_OF_GPU, WATTS_OF_GPU
                    self.listed_usd_per_device_hour = USD_OF_GPU
        self.num_ranks = self.num_ranks or machine.suitable_ranks(self.device)
        self.num_threads = self.num_threads or machine.suitable_threads(max(self.num_ranks, 1))
