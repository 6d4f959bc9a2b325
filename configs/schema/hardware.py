"""The devices of a run and what they cost."""

from dataclasses import dataclass

from configs.errors import require


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The devices of one machine and what they cost; ``num_ranks`` processes, one device each."""

    name: str = "cpu"
    """Name of the device in records and summaries."""
    device: str = "cpu"
    """Where tensors live: cpu or cuda."""
    num_ranks: int = 2
    """Processes of the whole job, one device each."""
    num_threads: int = 1
    """Threads of each process for arithmetic on the CPU."""
    usd_per_device_hour: float = 0.05
    """Price of one device for one hour, from which the cost of a run is computed."""
    watts_per_device: float = 20.0
    """Power that one device draws, from which the energy of a run is computed."""
    timeout_s: int = 300
    """Seconds without progress after which the ranks are taken to hang and end."""

    def __post_init__(self) -> None:
        for name in ("num_ranks", "num_threads", "timeout_s"):
            require(getattr(self, name) >= 1, f"hardware.{name}={getattr(self, name)} must be at least 1")
        require(self.device in ("cpu", "cuda"), f"hardware.device={self.device} is unknown; set it to cpu or cuda")
