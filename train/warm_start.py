"""A run that begins with the model of another: tables row by row by raw id, the encoder as it is."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.schema import RunConfig, Split, TableOptimizer, UserInput
from data_pipeline.split import Subset, split_rule
from data_pipeline.store.id_map import dense_ids, raw_items, raw_users
from data_pipeline.store.manifest import Manifest, identity_digests
from train.checkpoint.model_to_ship import model_to_ship
from train.checkpoint.reading import checkpoints_of
from train.checkpoint.state_dict import after_loading, make_optimizer_state, optimizer_state_of
from train.distributed.collectives import control_group, from_rank_zero
from train.distributed.heartbeat import heartbeating
from train.evaluation.trained_events import num_trained_targets, trained_events
from train.progress import RunProgress
from train.run_dir.identity import is_same_data
from train.run_dir.known_ids import (
    INIT_FROM,
    TrainedRun,
    refuse_other_features,
    refuse_other_item_features,
    refuse_other_kind_of_ids,
    refuse_other_shapes,
    store_of_run,
    trained_run,
)
from train.session import Session
from train.sharding import initialise_tables, uses_dense_kernel
from train.state import TrainState


def warm_start(session: Session, state: TrainState) -> dict[str, Any]:
    """Fill ``state``, at step 0, with the model of ``init_from``; what was taken, for ``summary.json``. Collective.

    Rows of items and users that the other run does not know keep their first values. Raises :class:`ConfigError`,
    which names a key, where the other model does not fit or was trained on test events of this run, and
    :class:`DataError` where it is damaged.
    """
    config, group = session.config, control_group()  # rank 0 reads for all, however long
    source = from_rank_zero(lambda: _read_source(session), group)
    _forget_all(state, config)
    of_source: RunConfig = replace(source.run.config, run_dir=config.init_from, scratch_dir=config.scratch_dir)
    with checkpoints_of(of_source, session.watchdog.heartbeat) as checkpointer:
        name = model_to_ship(checkpointer, config.checkpoint.use)
        tables = {table: source.rows[table] for table in _tables(config)}
        progress = checkpointer.restore_rows(name, state, tables, with_optimizer=config.init_optimizer)
        found = {"checkpoint": name, "step": state.step, "sum": checkpointer.sum_of(name)}
    state.step = 0
    after_loading(state)
    if state.average is not None:
        state.average.restart()
    known = from_rank_zero(lambda: _num_trained_targets(session, source, progress), group)
    counts = _counts(source, _tables(config), session.manifest)
    told = {"run_dir": config.init_from, **found, **counts, **known, "optimizer": config.init_optimizer}
    session.say(_line(told))
    return told


def model_of(told: dict[str, Any]) -> dict[str, Any]:
    """Of what :func:`warm_start` told, which model it was: checkpoint, step and sum."""
    return {key: told[key] for key in ("checkpoint", "step", "sum")}


@dataclass(frozen=True, slots=True)
class _Source:
    """The other run, the store and version whose dense ids are its rows, and by table which of them becomes which of
    ours, or -1."""

    run: TrainedRun
    store: str
    manifest: Manifest
    rows: dict[str, np.ndarray]


def _read_source(session: Session) -> _Source:
    """On rank 0."""
    with heartbeating(session.watchdog.heartbeat):
        return _source_of(session.config, session.manifest)


def _source_of(config: RunConfig, manifest: Manifest) -> _Source:
    run = trained_run(INIT_FROM, config.init_from, config.scratch_dir)
    refuse_other_shapes(run, config)
    _refuse_fused_adam(config)
    if is_same_data(run.identity, identity_digests(manifest)):
        rows = {"item": np.arange(manifest.num_items), "user": np.arange(manifest.num_users)}
        return _Source(run, config.data.store, manifest, rows)
    source, here = store_of_run(run, config.data.store), (config.data.store, manifest)
    refuse_other_kind_of_ids(run, source, *here)
    refuse_other_features(run, source[1], *here)
    refuse_other_item_features(run, source[1], *here)
    rows = {
        "item": dense_ids(raw_items(*source), raw_items(*here)),
        "user": dense_ids(raw_users(*source), raw_users(*here)),
    }
    if not (rows["item"] >= 0).any():
        raise ConfigError(
            f"{run.shown} knows none of the {manifest.num_items} items of data.store={config.data.store} by its raw "
            f"id; name a run over the same catalogue, or leave init_from out"
        )
    return _Source(run, *source, rows)


def _forget_all(state: TrainState, config: RunConfig) -> None:
    """Rows and optimizers as at the start; the optimizers have a state to load into, whose making is a step."""
    make_optimizer_state(state)
    for tensor in optimizer_state_of(state):
        for part, _ in tensor.parts:
            part.zero_()
    initialise_tables(state.model, config)


def _num_trained_targets(session: Session, source: _Source, progress: RunProgress) -> dict[str, int]:
    """On rank 0: how many targets of this run the other model was trained on; :class:`ConfigError` for those of the
    test, whose ranking would say nothing."""
    config = session.config
    if config.data.split is Split.NONE:
        return {}
    trained = trained_events(source.run.config, (source.store, source.manifest), progress)
    targets = (config.data.store, session.manifest, split_rule(config.data, session.manifest))
    sizes = {"item": session.manifest.num_items, "user": session.manifest.num_users}
    item, user = (_inverse(source.rows[table], size) for table, size in sizes.items())
    num = {
        subset: num_trained_targets(trained, targets, subset, item, user, session.watchdog.heartbeat)
        for subset in Subset
    }
    if num[Subset.TEST]:
        raise ConfigError(
            f"init_from={config.init_from} was trained on {num[Subset.TEST]} of the test targets of this run, so "
            f"that its test quality would say nothing; begin with the model that validation selected, by "
            f"checkpoint.use=best, rank later events, by data.split=global_time with dates, or none, by "
            f"data.split=none"
        )
    if num[Subset.VALID]:
        print(
            f"note: init_from={config.init_from} was trained on {num[Subset.VALID]} of the validation targets, which "
            f"flatters validation, not the test",
            flush=True,
        )
    return {"num_trained_valid_targets": num[Subset.VALID]}


def _inverse(rows: np.ndarray, size: int) -> np.ndarray:
    """For each of our ``size`` rows the other's, or -1."""
    found = np.full(size, -1, np.int64)
    taken = np.flatnonzero(rows >= 0)
    found[rows[taken]] = taken
    return found


def _counts(source: _Source, tables: list[str], manifest: Manifest) -> dict[str, Any]:
    """Rows of each table that are taken over, that are new here, and that are left behind."""
    told: dict[str, Any] = {"fingerprint": source.manifest.fingerprint}
    sizes = {"item": manifest.num_items, "user": manifest.num_users}
    for name in tables:
        taken = int((source.rows[name] >= 0).sum())
        told |= {
            f"num_{name}s_taken": taken,
            f"num_{name}s_new": sizes[name] - taken,
            f"num_{name}s_left": len(source.rows[name]) - taken,
        }
    return told


def _refuse_fused_adam(config: RunConfig) -> None:
    is_fused_adam = config.optimizer.table is TableOptimizer.ADAM and not uses_dense_kernel(config)
    if config.init_optimizer and is_fused_adam:
        raise ConfigError(
            "init_optimizer=true: optimizer.table=adam counts its steps by the run's own on a GPU, so that its state "
            "cannot be taken over; set init_optimizer=false"
        )


def _tables(config: RunConfig) -> list[str]:
    return ["item"] if config.model.user_input is UserInput.NONE else ["item", "user"]


def _line(told: dict[str, Any]) -> str:
    users = f", {told['num_users_taken']:,} users" if "num_users_taken" in told else ""
    new = f"{told['num_items_new']:,} items" + (f", {told['num_users_new']:,} users" if users else "")
    state = "with" if told["optimizer"] else "without"
    return (
        f"warm start: {told['checkpoint']} of init_from={told['run_dir']} (step {told['step']}), "
        f"{told['num_items_taken']:,} items{users} by raw id, {state} its optimizers' state; new: {new}"
    )
