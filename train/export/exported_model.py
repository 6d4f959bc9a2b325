"""The model as the export holds it, over the run's sharded tables: what is measured is what is shipped.

T events in the batch, B histories, L the longest of them, D the width of the model.
"""

import torch
from torch import Tensor, nn

from configs.schema import ExportDtype
from data_pipeline.batch import SequenceBatch, offsets_of
from models.loss.loss_inputs import LossInputs
from models.recommender import Recommender
from train.export.program import Inputs
from train.export.rounding import rounded


class ExportedModel(nn.Module):
    """Answers as a recommender that ranks, over rounded rows of its tables and with the exported program."""

    def __init__(self, recommender: Recommender, program: nn.Module, dtype: ExportDtype) -> None:
        """``program`` is on a CPU, the tables of ``recommender`` are where they are."""
        super().__init__()
        self._recommender, self._program, self._dtype = recommender, program, dtype

    def eval(self) -> "ExportedModel":
        """A program has one mode."""
        return self

    def forward(self, batch: SequenceBatch, candidates: Tensor, is_training: bool = False) -> LossInputs:
        """The query ``[B, D]`` after each history's last event, and the vectors of ``candidates``. Collective."""
        assert not is_training, "a program is only run"
        items, users = self._recommender.table_rows(torch.cat([batch.item, candidates]), batch.user)
        event, candidate = rounded(items, self._dtype).split([len(batch.item), len(candidates)])
        user = None if users is None else rounded(users, self._dtype)
        query = self._query(event, user, batch) if batch.num_users else event.new_zeros(0, items.shape[1])
        return LossInputs(query, batch.item[:0], event[:0], candidate)

    def _query(self, event: Tensor, user: Tensor | None, batch: SequenceBatch) -> Tensor:
        lengths = batch.lengths.cpu()
        inputs: Inputs = {"item_vectors": padded(event.cpu(), lengths), "lengths": lengths}
        if user is not None:
            inputs["user_vectors"] = user.cpu()
        if batch.features:
            inputs["features"] = {name: padded(values.cpu(), lengths) for name, values in batch.features.items()}
        found: Tensor = self._program(**inputs)
        return found.to(event.device)


def padded(events: Tensor, lengths: Tensor) -> Tensor:
    """``[T, ...]`` of histories of ``lengths`` ``[B]``, end to end, as ``[B, L, ...]``, zeros behind their ends."""
    place = torch.arange(int(lengths.max()))
    is_event = place < lengths[:, None]
    index = (offsets_of(lengths)[:-1, None] + place).where(is_event, 0)
    found = events[index]
    return found.masked_fill(~is_event.view(*is_event.shape, *[1] * (found.dim() - 2)), 0)
