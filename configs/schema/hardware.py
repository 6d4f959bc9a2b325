"""The devices of a run and what they cost."""

from dataclasses import dataclass

from configs.errors import require


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The devices of one machine and what they cost; ``num_ranks`` processes, one device each."""

    name: str = "cpu"
    device: str = "cpu"
    num_ranks: int = 2
    num_threads: int = 1
    usd_per_device_hour: float = 0.05
    watts_per_device: float = 20.0
    timeout_s: int = 300

    def __post_init__(self) -> None:
        for name in ("num_ranks", "num_threads", "timeout_s"):
            require(getattr(self, name) >= 1, f"hardware.{name}={getattr(self, name)} must be at least 1")
        require(self.device in ("cpu", "cuda"), f"hardware.device={self.device} is unknown; set it to cpu or cuda")
