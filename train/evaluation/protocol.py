"""Who is ranked against what: every user of a split, once, against the whole catalogue."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from configs.errors import DataError
from configs.schema import RunConfig, Split
from configs.schema.evaluation import LOSS
from configs.schema.target import Target
from data_pipeline.batch import EvaluationBatch
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from train.accounting.phase_clock import Phase
from train.distributed.collectives import from_rank_zero
from train.evaluation.memory import return_freed_memory
from train.evaluation.metrics import metric_of, quality_of
from train.evaluation.ranking import OnRanked, ignore, rank_targets
from train.evaluation.ratings import rating_errors
from train.evaluation.target_recorder import TargetRecorder
from train.evaluation.user_ranks import RankedTargets
from train.evaluation.validation_loss import mean_target_loss
from train.state import TrainState

HELD_TARGETS = 2**21
"""So many targets of the best validation are held while training goes on, 80 MB; more are ranked again at the end."""


def target_ranks_of(
    state: TrainState,
    config: RunConfig,
    num_items: int,
    subset: Subset,
    is_stop_requested: Callable[[], bool] = lambda: False,
    as_seen: Callable[[EvaluationBatch], EvaluationBatch] = lambda batch: batch,
    on_ranked: OnRanked = ignore,
) -> np.ndarray:
    """Rank of every target of ``subset`` ``[N]``, of each batch ``as_seen`` by the model; ``on_ranked`` is told of
    each. Collective. Raises :class:`StopRequested` where a rank was asked to stop."""
    return_freed_memory()
    began_s = time.perf_counter()
    with state.clock.phase(Phase.RANKING if subset is Subset.TEST else Phase.VALIDATION):
        ranks = rank_targets(
            state.model,
            map(as_seen, _batches_of(state, config, subset)),
            num_items=num_items,
            leave_out_seen=config.evaluation.leave_out_seen,
            collectives=state.collectives,
            device=state.device,
            is_stop_requested=is_stop_requested,
            on_ranked=on_ranked,
        )
    if subset is Subset.TEST:
        state.test_ranking = len(ranks), time.perf_counter() - began_s
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
    _last: TargetRecorder | None = field(default=None, init=False)
    _best: tuple[int, RankedTargets | None] = field(default=(-1, None), init=False)
    """The step of the best validation of this session, and on rank 0 where its targets stand."""

    def is_due(self, step: int) -> bool:
        """Whether the run is validated after ``step``."""
        return step % self.every_steps == 0 and step >= self.config.evaluation.first_step

    @property
    def target(self) -> Target | None:
        """The quality at which the run ends."""
        return self.config.train.target_quality

    @property
    def metric(self) -> str:
        """The figure by which models are compared, a key of what :meth:`quality` returns."""
        return self.config.evaluation.metric

    def quality(self, state: TrainState) -> dict[str, float]:
        """Exact quality on validation, the same on every rank; :class:`StopRequested` on all where one was asked to
        stop. Collective."""
        with state.clock.phase(Phase.VALIDATION):
            return self._quality(state)

    def _quality(self, state: TrainState) -> dict[str, float]:
        self._last = TargetRecorder(state.collectives.rank, HELD_TARGETS)
        ranks = self._ranks(state, self._last)
        quality = quality_of(ranks)
        metrics = {self.metric, *([self.target.metric] if self.target else [])}
        if LOSS in metrics:
            quality[LOSS] = self._loss(state)
        if self.config.label:
            quality |= rating_errors(state, self.config, self.manifest, self.subset, self.is_stop_requested)
        for name in sorted(metrics - quality.keys()):
            quality[name] = metric_of(ranks, name)
        return quality

    def keep_best(self, step: int) -> None:
        """The last validation, of ``step``, was the best so far."""
        self._best = step, self._last.targets() if self._last is not None else None

    def best_targets(self, state: TrainState, step: int) -> RankedTargets | None:
        """Where the targets stand of the best validation, of ``step``, whose model ``state`` holds: on rank 0, by
        user. An earlier session may have validated it: then it is ranked again. Collective; raises as
        :meth:`quality`."""
        if from_rank_zero(lambda: self._best[0] == step and self._best[1] is not None):
            return self._best[1]
        recorder = TargetRecorder(state.collectives.rank)
        self._ranks(state, recorder)
        return recorder.targets()

    def _ranks(self, state: TrainState, recorder: TargetRecorder) -> np.ndarray:
        num_items = self.manifest.num_items
        return target_ranks_of(state, self.config, num_items, self.subset, self.is_stop_requested, on_ranked=recorder)

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
