"""What a run costs: device-hours, dollars and kilowatt-hours, from its wall time and the hardware's config."""

from configs.schema import HardwareConfig


def cost_of(wall_s: float, hardware: HardwareConfig, world_size: int) -> dict[str, float]:
    """Cost of ``world_size`` devices held for ``wall_s`` seconds; price and power are the config's, not measured."""
    device_hours = wall_s * world_size / 3600
    return {
        "device_hours": device_hours,
        "usd": device_hours * hardware.usd_per_device_hour,
        "kwh": device_hours * hardware.watts_per_device / 1000,
    }
