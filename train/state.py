"""What a run learns and where it stands; everything that a checkpoint must bring back."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torchrec.distributed import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer

from configs.schema import TableOptimizer
from models.collectives import Collectives
from train.accounting.flop import FlopCounter
from train.accounting.phase_clock import PhaseClock
from train.average import WeightAverage
from train.backward import Backward
from train.objective import Objective
from train.schedule import Schedule


@dataclass(slots=True)
class TrainState:
    """The model on its ranks, its optimizer, and the number of steps that were trained."""

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    schedule: Schedule
    objective: Objective
    backward: Backward
    collectives: Collectives
    device: torch.device
    seed: int
    table_optimizer: TableOptimizer
    average: WeightAverage | None = None
    """Of the weights, where ``optimizer.ema_decay`` asks for one."""
    step: int = 0
    clock: PhaseClock = field(default_factory=PhaseClock)
    """Told what is done with the state."""
    flop: FlopCounter | None = None
    """Of a model that is trained."""
    test_ranking: tuple[int, float] | None = None
    """How many test users all ranks have ranked the last time, and the seconds that it took."""

    def averaged(self) -> AbstractContextManager[None]:
        """Within the block the model is the one to evaluate and to keep: the average of its weights, if there is."""
        return nullcontext() if self.average is None else self.average.in_place()

    def adopt_average(self) -> None:
        """The model becomes the one to evaluate and to keep; it is not trained any more."""
        if self.average is not None:
            self.average.adopt()
