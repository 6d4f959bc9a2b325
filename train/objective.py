"""The loss of a global batch over sharded tables: one value, the same on every rank, under every plan."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from configs.schema import EncoderConfig, FullSoftmaxConfig, LossConfig, MSEConfig, SampledConfig
from configs.schema.model import Masking
from data_pipeline.batch import SequenceBatch
from models.collectives import Collectives
from models.loss.full_softmax import extent_of, full_softmax_loss, suitable_chunk_tokens
from models.loss.item_shard import slice_of, slice_size
from models.loss.loss_inputs import LossInputs
from models.loss.negatives import NegativeSampler
from models.loss.sampled import sampled_loss
from models.loss.squared_error import squared_error
from models.masking import hidden_events


@dataclass(slots=True)
class Task:
    """What is predicted in a step."""

    batch: SequenceBatch
    """This rank's part."""
    candidates: Tensor
    """Item ids that predictions are scored against: this rank's slice of the catalogue, or the negatives."""
    num_predictions: Tensor | None
    """Of all ranks; None until the loss that tells it is computed."""


@dataclass(slots=True)
class Objective:
    """Scores a batch against the slice of the catalogue that this rank owns, or against shared negatives."""

    config: LossConfig
    items: range
    num_items: int
    sampler: NegativeSampler | None
    collectives: Collectives
    masking: Masking | None
    """Which events the encoder is to find; None: each one, from those before it."""
    is_probability: bool
    """Whether the sigmoid of a score is what is predicted."""
    seed: int
    catalogue: Tensor | None = None
    """The items that training knows, ascending ids [W]; ``items``, negatives and targets are then places in it. None:
    all items."""
    place: Tensor | None = None
    """Of each item [V] its place in ``catalogue``."""

    def __call__(self, model: DistributedModelParallel, batch: SequenceBatch, step: int) -> tuple[Tensor, Tensor]:
        """The loss to go backward from, and the reported mean over the global number of predictions. Collective."""
        task = self.task(batch, step)
        total = self.total(model(task.batch, task.candidates), task)
        return self.backward_from(total, task), self.reported(total.detach(), task)

    def task(self, batch: SequenceBatch, step: int, num_parts: int = 1) -> Task:
        """What the ranks predict in ``step``, and against which items: the same however their parts of the batch are
        cut up, here into ``num_parts``. Collective."""
        if self.masking is not None:
            batch = replace(batch, is_hidden=hidden_events(batch, self.masking, seed=self.seed, step=step))
        is_told_by_loss = num_parts == 1 and isinstance(self.config, FullSoftmaxConfig)
        num_predictions = None if is_told_by_loss else self._num_predictions(batch)
        if isinstance(self.config, FullSoftmaxConfig):
            candidates = torch.arange(self.items.start, self.items.stop, device=batch.item.device)
        elif isinstance(self.config, MSEConfig):
            candidates = batch.item[:0]
        else:
            assert self.sampler is not None, "build_objective gives a sampled loss its sampler"
            candidates = self.sampler.draw(step, self._places(batch.item), self.collectives)
        if self.catalogue is not None:
            candidates = self.catalogue[candidates]
        return Task(batch, candidates, num_predictions)

    def total(self, found: LossInputs, task: Task) -> Tensor:
        """The sum of the losses of what is predicted in ``found``: of all ranks under the full softmax, of this one
        under the others. Collective."""
        found = found._replace(target=self._places(found.target))
        if isinstance(self.config, FullSoftmaxConfig):
            extent = extent_of(found.query, found.candidate_vector, self.collectives)
            if task.num_predictions is None:
                task.num_predictions = torch.tensor(float(max(extent.num_predictions, 1)), dtype=torch.float64)
            return full_softmax_loss(
                found.query,
                found.target,
                found.candidate_vector,
                self.items,
                chunk_tokens=self._chunk_tokens(self.config, found.target.device),
                collectives=self.collectives,
                precision=self.config.precision,
                extent=extent,
            )
        if isinstance(self.config, MSEConfig):
            return squared_error(found, self.is_probability)
        assert isinstance(self.config, SampledConfig), "every other loss is sampled"
        assert self.sampler is not None, "build_objective gives a sampled loss its sampler"
        return sampled_loss(found, self._places(task.candidates), self.sampler.log_q, self.config, self.num_items)

    def backward_from(self, total: Tensor, task: Task) -> Tensor:
        """The loss to go backward from.

        TorchRec and DDP average gradients over ranks. A rank's part is its share of the global mean times the number
        of ranks, so that the average is the gradient of the global mean.
        """
        assert task.num_predictions is not None, "total comes first"
        if isinstance(self.config, FullSoftmaxConfig):
            return total / task.num_predictions * self.collectives.world_size
        return total * (self.collectives.world_size / task.num_predictions)

    def reported(self, total: Tensor, task: Task) -> Tensor:
        """The mean over the global number of predictions, of a detached ``total``. Collective."""
        assert task.num_predictions is not None, "total comes first"
        if isinstance(self.config, FullSoftmaxConfig):
            return total / task.num_predictions
        return self.collectives.sum(total.double().clone()) / task.num_predictions

    def _places(self, item: Tensor) -> Tensor:
        """Where items lie in the catalogue of training."""
        return item if self.place is None else self.place[item]

    def _chunk_tokens(self, config: FullSoftmaxConfig, device: torch.device) -> int:
        num_rows = slice_size(self.num_items, self.collectives)
        return config.chunk_tokens or suitable_chunk_tokens(
            device, num_rows, config.precision, self.collectives.world_size
        )

    def _num_predictions(self, batch: SequenceBatch) -> Tensor:
        own = (batch.lengths - 1).clamp(min=0) if batch.is_hidden is None else batch.is_hidden
        own = own.sum().double()
        return self.collectives.sum(own).clamp(min=1)


def build_objective(
    config: LossConfig,
    model: EncoderConfig,
    counts: np.ndarray,
    seed: int,
    collectives: Collectives,
    device: torch.device,
    is_cold: np.ndarray | None = None,
) -> Objective:
    """The objective over a catalogue, of whose items ``counts`` ``[V]`` are the training events, on ``device``.

    Items that are cold, bool ``[V]``, are not there for training: not even as negatives, which would teach the model
    that nobody wants them.
    """
    catalogue = place = None
    if is_cold is not None:
        warm = np.flatnonzero(~is_cold)
        catalogue, counts = torch.from_numpy(warm).to(device), counts[warm]
        place = torch.from_numpy(np.cumsum(~is_cold) - 1).to(device)
    sampler = NegativeSampler(config, counts, seed) if isinstance(config, SampledConfig) else None
    if sampler is not None:
        sampler.log_q = sampler.log_q.to(device)
    items = slice_of(len(counts), collectives)
    is_probability = model.is_probability
    return Objective(
        config, items, len(counts), sampler, collectives, model.masking, is_probability, seed, catalogue, place
    )
