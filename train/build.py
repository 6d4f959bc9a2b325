"""Builds what a run trains: the model on its ranks with its optimizers, at step 0."""

from typing import cast

import numpy as np
import torch

from configs.schema import RunConfig, SampledConfig, Split, UserInput
from data_pipeline.cold_items import WARM
from data_pipeline.split import HeldOut, split_rule
from data_pipeline.store.features import chosen_features
from data_pipeline.store.item_content import ContentColumn
from data_pipeline.store.manifest import Manifest, item_content
from data_pipeline.training_events import training_item_counts, training_label_sum
from models.encoders.classical import UserEncoder
from models.item_content import ContentValues, ItemContent
from models.recommender import Recommender
from models.tables import build_tables
from train.accounting.flop import FlopCounter
from train.accounting.phase_clock import PhaseClock
from train.accounting.timed_step import time_encoder
from train.average import WeightAverage
from train.backward import build_backward
from train.distributed.collectives import ProcessGroupCollectives
from train.objective import build_objective
from train.optimizer import build_optimizer, fuse_table_optimizer
from train.schedule import Schedule
from train.sharding import forget_rows, shard
from train.state import TrainState


def build_state(
    config: RunConfig,
    manifest: Manifest,
    num_steps: int,
    collectives: ProcessGroupCollectives,
    device: torch.device,
    held_out: HeldOut | None = HeldOut.VALID_AND_TEST,
    clock: PhaseClock | None = None,
) -> TrainState:
    """The model on its ranks at step 0; the same weights at any world size and under any plan. Collective.

    ``held_out``: the events that are not trained on, and that no statistic of training may know; None for a model
    that is not trained. ``clock``: is told what a step is at.
    """
    torch.manual_seed(config.seed)  # the dense part starts alike on every rank
    num_users = 0 if config.model.user_input is UserInput.NONE else manifest.num_users
    tables = build_tables(manifest.num_items, num_users, config.model.embedding_dim)
    features = chosen_features(config.data.store, manifest.features, config.model.event_features)
    num_codes = {name: feature.num_codes for name, feature in features.items()}
    content = _item_content(config, manifest)
    model = Recommender(config.model, tables, config.data.max_history, num_codes, content)
    if config.label:
        model.label = config.label
        if held_out is not None:
            mean = _training_label_mean(config, manifest, collectives, device, held_out)
            cast(UserEncoder, model.encoder).begin_at(mean)
    fuse_table_optimizer(model, config)
    sharded = shard(model, config, device)
    optimizer = build_optimizer(sharded, config)
    counts = _training_counts(config, manifest, collectives, device, held_out)
    is_cold = _cold_items(config, manifest, held_out)
    if is_cold is not None:
        forget_rows(sharded, "item", is_cold)  # they stay so: training never looks them up
    objective = build_objective(config.loss, config.model, counts, config.seed, collectives, device, is_cold)
    schedule = Schedule(optimizer, config.optimizer, num_steps)
    backward = build_backward(sharded, model, config, collectives, device)
    average = None
    if config.optimizer.ema_decay and held_out is not None:
        average = WeightAverage(sharded, config.optimizer.ema_decay)
    if clock is not None:
        time_encoder(model.get_submodule("encoder"), clock)
    return TrainState(
        sharded,
        optimizer,
        schedule,
        objective,
        backward,
        collectives,
        device,
        config.seed,
        config.optimizer.table,
        average,
        clock=clock or PhaseClock(),
        flop=FlopCounter(model.encoder, config.model, config.loss, objective.num_items),
    )


def _item_content(config: RunConfig, manifest: Manifest) -> ItemContent | None:
    """Of ``model.item_features``, read on every rank; None where there are none."""
    if not config.model.item_features:
        return None
    columns = item_content(config.data.store, manifest, config.model.item_features)
    features = [content_values(column) for column in columns.values()]
    return ItemContent(features, config.model.embedding_dim, config.model.initial_std)


def _cold_items(config: RunConfig, manifest: Manifest, held_out: HeldOut | None) -> np.ndarray | None:
    """bool [V]: the items that training may not know; None for a split that holds out none."""
    if held_out is None or config.data.split is not Split.COLD_ITEMS:
        return None
    cold = split_rule(config.data, manifest, held_out).cold
    assert cold is not None, "the split holds out items"
    return cold != WARM


def content_values(column: ContentColumn) -> ContentValues:
    """A column of the store as the model takes it."""
    num_codes = column.feature.num_codes
    values = torch.from_numpy(column.values.astype(np.int64) if num_codes else column.values.copy())
    offsets = None if column.offsets is None else torch.from_numpy(column.offsets)
    return ContentValues(values, num_codes, offsets)


def _training_label_mean(
    config: RunConfig,
    manifest: Manifest,
    collectives: ProcessGroupCollectives,
    device: torch.device,
    held_out: HeldOut,
) -> float:
    """Of the training events' labels: each rank reads a part of the users. Collective."""
    rule = split_rule(config.data, manifest, held_out)
    own = training_label_sum(
        config.data.store, manifest, rule, config.label, collectives.rank, collectives.world_size
    )
    total, count = collectives.sum(torch.tensor(own, dtype=torch.float64, device=device)).tolist()
    return total / max(count, 1)


def _training_counts(
    config: RunConfig,
    manifest: Manifest,
    collectives: ProcessGroupCollectives,
    device: torch.device,
    held_out: HeldOut | None,
) -> np.ndarray:
    """Training events of every item ``[V]``, zeros where the loss does not ask for them: each rank reads a part of
    the users. Collective."""
    loss = config.loss
    if held_out is None or not isinstance(loss, SampledConfig) or not loss.needs_counts:
        return np.zeros(manifest.num_items, np.int64)
    rule = split_rule(config.data, manifest, held_out)
    own = training_item_counts(config.data.store, manifest, rule, collectives.rank, collectives.world_size)
    return collectives.sum(torch.from_numpy(own).to(device)).cpu().numpy()
