"""What a run costs, for its summary: devices, dollars, energy, arithmetic, memory, disk, and what ranking costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from train.accounting.ledger import FINISHED, Ledger, Spent, spent_of, summed_phases
from train.accounting.memory import peak_memory_bytes
from train.progress import RunProgress
from train.state import TrainState

SHOWN_OF_SESSION = ("began", "world_size", "wall_s", "device_s", "usd", "kwh", "ended")
MILLION = 1e6


def cost_report(ledger: Ledger, state: TrainState, progress: RunProgress, folder: Path) -> dict[str, Any]:
    """Of all sessions of the run in ``folder`` up to now, this one as if it ended here. Collective."""
    ledger.gather()
    own = torch.tensor([peak_memory_bytes(state.device)], device=state.device)
    memory = state.collectives.gather(own, [1] * state.collectives.world_size).tolist()
    return {
        **spending(ledger),
        "lost_device_s": progress.lost_device_s,
        "flop": progress.flop,
        "mfu": progress.flop / progress.possible_flop if progress.possible_flop else None,
        "peak_memory_bytes": memory,
        **_inference(ledger, state),
        "storage_bytes": bytes_below(folder),
    }


def spending(ledger: Ledger) -> dict[str, Any]:
    """What all sessions have spent, on what, and by which price and power."""
    lines = [*ledger.earlier, ledger.line(FINISHED)]
    total = sum((spent_of(line) for line in lines), Spent())
    return {
        **total.bill(),
        "phases_s": summed_phases([line["phases_s"] for line in lines]),
        "sessions": [{key: line[key] for key in SHOWN_OF_SESSION} for line in lines],
        "power": {
            "watts": total.kwh * 1000 / max(total.device_s / 3600, 1e-9),
            "source": _joined([line.get("power_source", "") for line in lines]),
        },
        "price": ledger.hardware.price,
    }


def cost_of(progress: RunProgress) -> dict[str, float]:
    """Device-hours, US dollars and kWh of what ``progress`` has spent."""
    return spent_of(progress).bill()


def bytes_below(folder: Path) -> int:
    """Of all files of a run: checkpoints, logs, records."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _inference(ledger: Ledger, state: TrainState) -> dict[str, Any]:
    """What a million of users would cost whose best items are found as the test users' were: each one's history
    encoded, and the whole catalogue scored."""
    if state.test_ranking is None or not state.test_ranking[0]:
        return {}
    num_users, seconds = state.test_ranking
    here = ledger.spent_here()
    device_s = seconds * state.collectives.world_size / num_users
    kwh_per_device_s = here.kwh / max(here.device_s, 1e-9)
    return {
        "inference": {
            "num_users": num_users,
            "users_per_s_per_device": 1 / max(device_s, 1e-12),
            "usd_per_million": MILLION * device_s / 3600 * ledger.hardware.usd_per_device_hour,
            "kwh_per_million": MILLION * device_s * kwh_per_device_s,
        }
    }


def _joined(sources: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(source for source in sources if source))
