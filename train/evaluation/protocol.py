"""Who is ranked against what: every user of a split, once, against the whole catalogue."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from configs.errors import DataError
from configs.schema import RunConfig, Split
from configs.schema.evaluation import LOSS
from data_pipeline.batch import EvaluationBatch
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from train.evaluation.memory import return_freed_memory
from train.evaluation.metrics import metric_of, quality_of
from train.evaluation.ranking import rank_targets
from train.evaluation.ratings import rating_errors
from train.evaluation.validation_loss import mean_target_loss
from train.state import TrainState


def target_ranks_of(
    state: TrainState,
    config: RunConfig,
    num_items: int,
    subset: Subset,
    is_stop_requested: Callable[[], bool] = lambda: False,
    as_seen: Callable[[EvaluationBatch], EvaluationBatch] = lambda batch: batch,
    on_targets: Callable[[Tensor], None] = lambda targets: None,
) -> np.ndarray:
    """Rank of every target of ``subset`` ``[N]``, of each batch ``as_seen`` by the model; ``on_targets`` is told what
    they are, in order. Collective. Raises :class:`StopRequested` where a rank was asked to stop."""
    return_freed_memory()
    ranks = rank_targets(
        state.model,
        map(as_seen, _batches_of(state, config, subset)),
        num_items=num_items,
        leave_out_seen=config.evaluation.leave_out_seen,
        collectives=state.collectives,
        device=state.device,
        is_stop_requested=is_stop_requested,
        on_targets=on_targets,
    )
    return_freed_memory()
    return ranks


def _batches_of(state: TrainState, config: RunConfig, subset: Subset) -> Iterator[EvaluationBatch]:
    """This rank's users of ``subset``."""
    return evaluation_batches(
        config.data,
        subset,
        batch_size=config.evaluation.batch_size,
        rank=state.collectives.rank,
        world_size=state.collectives.world_size,
        features=config.model.event_features,
    )


def require_targets(config: RunConfig, manifest: Manifest) -> None:
    """Raise :class:`DataError` where a subset has nobody to rank: found before training, not after it. With
    ``data.split=none`` nobody is ranked."""
    if config.data.split is Split.NONE:
        return
    for subset in Subset:
        batches = evaluation_batches(config.data, subset, batch_size=1, rank=0, world_size=1, features=())
        if next(batches, None) is None:
            hint = "choose another split"
            if config.data.split is Split.GLOBAL_TIME:
                hint = f"set data.global_time_{subset.value} and its like to other dates or fractions, or {hint}"
            raise DataError(
                f"data.store={config.data.store} has no {subset.value} target under data.split="
                f"{config.data.split.value}: none of its {manifest.num_users} users has one; {hint}"
            )


@dataclass(slots=True)
class Validator:
    """Ranks the events of ``subset`` every ``every_steps`` steps."""

    config: RunConfig
    manifest: Manifest
    every_steps: int
    is_stop_requested: Callable[[], bool] = lambda: False
    subset: Subset = Subset.VALID

    def is_due(self, step: int) -> bool:
        """Whether the run is validated after ``step``."""
        return step % self.every_steps == 0

    @property
    def metric(self) -> str:
        """The figure by which models are compared, a key of what :meth:`quality` returns."""
        return self.config.evaluation.metric

    def quality(self, state: TrainState) -> dict[str, float]:
        """Exact quality on validation, the same on every rank; :class:`StopRequested` on all where one was asked to
        stop. Collective."""
        num_items = self.manifest.num_items
        ranks = target_ranks_of(state, self.config, num_items, self.subset, self.is_stop_requested)
        quality = quality_of(ranks)
        if self.metric == LOSS:
            quality[LOSS] = self._loss(state)
        if self.config.label:
            quality |= rating_errors(state, self.config, self.manifest, self.subset, self.is_stop_requested)
        if self.metric not in quality:
            quality[self.metric] = metric_of(ranks, self.metric)
        return quality

    def _loss(self, state: TrainState) -> float:
        """By a second pass over the users."""
        return mean_target_loss(
            state.model,
            _batches_of(state, self.config, self.subset),
            num_items=self.manifest.num_items,
            collectives=state.collectives,
            device=state.device,
            is_stop_requested=self.is_stop_requested,
        )
