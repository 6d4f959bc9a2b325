"""By which events a run recommends: its own, or those of another store or version, in the ids of its model."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import RunConfig, UserInput
from data_pipeline.store.id_map import UNKNOWN, dense_ids, raw_items, raw_users
from data_pipeline.store.manifest import Manifest, item_table, load_manifest
from train.evaluation.preflight import asked_events
from train.run_dir.known_ids import (
    TrainedRun,
    refuse_unknown_items,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """``config`` names the store and version whose events are the histories, ``manifest`` is its; ``model`` and
    ``model_manifest`` are those whose dense ids are the rows of the model, the same where nothing else is asked."""

    run: TrainedRun
    config: RunConfig
    manifest: Manifest
    model: RunConfig
    model_manifest: Manifest

    @property
    def is_elsewhere(self) -> bool:
        """Whether ids must be matched."""
        return self.model is not self.config

    def with_config(self, config: RunConfig) -> "Asked":
        """The same events of the same run, as ``config`` has them."""
        return Asked(
            self.run, config, self.manifest, self.model if self.is_elsewhere else config, self.model_manifest
        )

    @property
    def shown_catalogue(self) -> str:
        """Whose items can be recommended, in words."""
        run = f"what run_dir={self.config.run_dir} learnt from"
        return run if self.is_elsewhere else f"data.store={self.config.data.store}"


@dataclass(frozen=True, slots=True)
class Rows:
    """For each dense id of the events' store the model's, or -1: int64 [V'] and [U']. None: they are the same; users
    have none either where the model has no table of them."""

    item: np.ndarray | None = None
    user: np.ndarray | None = None


def asked_of(config: RunConfig, typed: Collection[str] = ()) -> Asked:
    """What is asked of the run in ``config``'s ``run_dir``: by its own events, or where the ``typed`` keys name a
    store or a version, by those. Raises :class:`ConfigError`, which names the key, where that cannot be."""
    asked = asked_events(config, typed)
    return Asked(asked.run, asked.config, asked.manifest, *asked.of_model())


def rows_of(asked: Asked) -> tuple[Rows, list[str]]:
    """How ids are matched, and what to tell of it; reads the raw ids of both stores."""
    if not asked.is_elsewhere:
        return Rows(), _note_of_a_newer_version(asked)
    here, there = (asked.config.data.store, asked.manifest), (asked.model.data.store, asked.model_manifest)
    item = dense_ids(raw_items(*here), raw_items(*there))
    refuse_unknown_items(asked.run, item, asked.config.data.store)
    user = None
    if asked.config.model.user_input is not UserInput.NONE:
        user = dense_ids(raw_users(*here), raw_users(*there))
    return Rows(item, user), [_line(asked), *_unknown(asked, item, user)]


def with_new_lengths(
    rows: np.ndarray, item: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which events [T] are of items that the model knows, and where those of each user start, and how many they are.

    ``starts`` and ``lengths`` [B] are those of ``item`` [T].
    """
    is_known = rows[item] != UNKNOWN
    before = np.concatenate([[0], np.cumsum(is_known)])
    return is_known, before[starts], before[starts + lengths] - before[starts]


def _note_of_a_newer_version(asked: Asked) -> list[str]:
    store, version = asked.config.data.store, asked.manifest.version
    newest = load_manifest(store).version
    if newest <= version:
        return []
    return [
        f"note: histories are those of version {version} of data.store={store}, which the run learnt from; version "
        f"{newest} is there: data.store={store} on the command line asks for it"
    ]


def _line(asked: Asked) -> str:
    return (
        f"note: histories of data.store={asked.config.data.store}, version {asked.manifest.version}, not those that "
        f"run_dir={asked.config.run_dir} learnt from ({asked.model.data.store}, version "
        f"{asked.model_manifest.version}); items and users are matched by raw id"
    )


def _unknown(asked: Asked, item: np.ndarray, user: np.ndarray | None) -> Sequence[str]:
    """Counts of what the model does not know; none where it knows all."""
    store, found = f"data.store={asked.config.data.store}", list[str]()
    if num_new := int((item == UNKNOWN).sum()):
        count = item_table(asked.config.data.store, asked.manifest, ["item", "count"]).sort_by("item")
        num_events = int(count.column("count").to_numpy()[item == UNKNOWN].sum())
        found.append(
            f"note: {num_new:,} of the {len(item):,} items of {store} are new to the model: none is recommended, and "
            f"their {num_events:,} of {asked.manifest.num_events:,} events are left out of histories"
        )
    if user is not None and (num_new := int((user == UNKNOWN).sum())):
        found.append(
            f"note: {num_new:,} of the {len(user):,} users of {store} are new to the model, which has no vector of "
            f"them: their histories alone count"
        )
    return found
