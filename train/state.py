"""What a run learns and where it stands; everything that a checkpoint must bring back."""

from dataclasses import dataclass

import torch
from torchrec.distributed import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer

from configs.schema import TableOptimizer
from models.collectives import Collectives
from train.nonfinite import NonFiniteFilter
from train.objective import Objective
from train.schedule import Schedule


@dataclass(slots=True)
class TrainState:
    """The model on its ranks, its optimizer, and the number of steps that were trained."""

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    schedule: Schedule
    objective: Objective
    nonfinite: NonFiniteFilter
    collectives: Collectives
    device: torch.device
    seed: int
    table_optimizer: TableOptimizer
    step: int = 0
