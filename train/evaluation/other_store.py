"""An old model on newer events: the events of another store, or of another version, in the ids of the model.

What the model does not know is not there for it: events of unknown items leave the histories, unknown items are no
candidates. B users of a batch.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.schema import RunConfig
from data_pipeline.batch import EvaluationBatch, SequenceBatch
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from models.collectives import Collectives
from train.evaluation.protocol import target_ranks_of
from train.evaluation.target_recorder import TargetRecorder
from train.evaluation.user_ranks import RankedTargets
from train.state import TrainState


@dataclass(frozen=True, slots=True)
class KnownIds:
    """For each dense id of the store the model's, or -1: int64. ``num_items`` of the model's catalogue."""

    item: np.ndarray
    user: np.ndarray
    num_items: int


@dataclass(slots=True)
class Misses:
    """What the model could not know, over this rank's batches."""

    num_new_item_targets: int = 0
    """Targets that are items which the model does not know: misses."""
    num_users_without_known_events: int = 0
    """Users of whose history before the target the model knows no item, and whose target it knows: misses."""
    num_unknown_users: int = 0
    """Ranked users whom the model has no row for."""
    num_unknown_events: int = 0
    """Events before the targets that are left out, since the model does not know the item."""
    num_events: int = 0

    @property
    def num_unranked(self) -> int:
        """Targets that are misses without being ranked."""
        return self.num_new_item_targets + self.num_users_without_known_events


@dataclass(slots=True)
class RankedElsewhere:
    """Ranks of all targets [N], those that the model cannot rank last and infinite; and why, over all ranks."""

    ranks: np.ndarray
    targets: RankedTargets | None
    """Of all targets, by user, in the ids of the other store; on rank 0 alone."""
    misses: dict[str, int] = field(default_factory=dict)
    num_unranked: int = 0


def target_ranks_elsewhere(
    state: TrainState, config: RunConfig, manifest: Manifest, known: KnownIds, subset: Subset
) -> RankedElsewhere:
    """Rank of every target of ``subset`` among the items that the model knows. ``manifest`` is that of the other
    store, which ``config`` names. Collective."""
    misses, unranked = Misses(), list[Tensor]()
    recorder = TargetRecorder(state.collectives.rank)
    whole = replace(config.data, max_history=max(manifest.longest_history, 1))  # known events may lie further back
    ranks = target_ranks_of(
        state,
        replace(config, data=whole),
        known.num_items,
        subset,
        as_seen=lambda batch: in_known_ids(batch, known, config.data.max_history, misses, unranked),
        on_ranked=recorder,
    )
    recorder.add_unranked(
        state.collectives.gather(torch.cat([torch.zeros(0, 3, dtype=torch.int64), *unranked]).to(state.device))
    )
    return _joined(ranks, recorder.targets(), misses, state.collectives, state.device)


def in_known_ids(
    batch: EvaluationBatch, known: KnownIds, max_history: int, misses: Misses, unranked: list[Tensor]
) -> EvaluationBatch:
    """``batch``, with whole histories, as the model can see it: known events alone, the last ``max_history`` of them;
    users of whom nothing is known, and those whose target is not, are counted in ``misses``, added to ``unranked`` as
    ``EvaluationBatch.of_store`` has them, and left out."""
    item, user = torch.from_numpy(known.item), torch.from_numpy(known.user)
    num_users, history = len(batch.target), batch.history
    seen, target = item[batch.seen], item[batch.target]
    owner = torch.repeat_interleave(torch.arange(num_users), batch.seen_lengths)
    num_known = torch.bincount(owner[seen >= 0], minlength=num_users)
    misses.num_events += len(seen)
    misses.num_unknown_events += int((seen < 0).sum())
    misses.num_new_item_targets += int((target < 0).sum())
    misses.num_users_without_known_events += int(((target >= 0) & (num_known == 0)).sum())
    kept = (target >= 0) & (num_known > 0)
    misses.num_unknown_users += int((user[history.user][kept] < 0).sum())
    unranked.append(batch.as_stored[~kept])
    is_kept = (seen >= 0) & kept[owner]
    lengths = num_known[kept]
    last = _last_of_each(is_kept.nonzero().squeeze(1), lengths, max_history)
    return EvaluationBatch(
        history=SequenceBatch(
            item=item[history.item[last]],
            lengths=lengths.clamp(max=max_history),
            user=user[history.user[kept]],
            timestamp=history.timestamp[last],
            features={name: values[last] for name, values in history.features.items()},
        ),
        target=target[kept],
        seen=seen[is_kept],
        seen_lengths=lengths,
        of_store=batch.as_stored[kept],
    )


def _last_of_each(places: Tensor, lengths: Tensor, number: int) -> Tensor:
    """Of ``places``, which come user by user with ``lengths`` [B], the last ``number`` of each user."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    from_end = torch.cumsum(lengths, 0)[owner] - torch.arange(len(places))
    return places[from_end <= number]


def _joined(
    ranks: np.ndarray,
    targets: RankedTargets | None,
    misses: Misses,
    collectives: Collectives,
    device: torch.device,
) -> RankedElsewhere:
    names = list(Misses.__dataclass_fields__)
    own = torch.tensor([*(getattr(misses, name) for name in names), misses.num_unranked], device=device)
    *counts, num_unranked = collectives.sum(own).tolist()
    all_ranks = np.concatenate([ranks, np.full(num_unranked, np.inf)])
    told: dict[str, Any] = dict(zip(names, counts, strict=True))
    return RankedElsewhere(all_ranks, targets, told, num_unranked)
