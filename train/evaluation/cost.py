"""What devices cost: dollars and kilowatt-hours of the time that they were held."""

from configs.schema import HardwareConfig
from train.progress import RunProgress


def add_cost(progress: RunProgress, seconds: float, world_size: int, hardware: HardwareConfig) -> None:
    """Add ``world_size`` devices held for ``seconds`` to what ``progress`` has spent.

    Price and power are those of this session's ``hardware``, not measured; other sessions may have had others.
    """
    progress.wall_s += seconds
    progress.device_s += seconds * world_size
    progress.usd += seconds * world_size / 3600 * hardware.usd_per_device_hour
    progress.kwh += seconds * world_size / 3600 * hardware.watts_per_device / 1000


def cost_of(progress: RunProgress) -> dict[str, float]:
    """Device-hours, US dollars and kWh of all sessions together."""
    return {"device_hours": progress.device_s / 3600, "usd": progress.usd, "kwh": progress.kwh}
