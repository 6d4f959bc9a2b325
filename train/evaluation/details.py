"""What a report tells beyond means over all targets: quality by group, which rank 0 counts."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from configs.schema import RunConfig
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from train.evaluation.census import catalogue_of, profiles_of
from train.evaluation.group_quality import METRICS, quality_by_group
from train.evaluation.groups import event_columns, groupings_of
from train.evaluation.user_ranks import RankedTargets


def details_of(
    targets: RankedTargets, config: RunConfig, manifest: Manifest, go_on: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """``groups`` of the ranked test ``targets``, by each of ``evaluation.groups``. Not collective.

    ``go_on`` is called between reads, and may raise. Raises as :func:`groupings_of`.
    """
    if not config.evaluation.groups:
        return {}
    data, evaluation = config.data, config.evaluation
    catalogue = catalogue_of(data, manifest, go_on)
    profiles = profiles_of(data, manifest, Subset.TEST, catalogue, event_columns(config, manifest), go_on)
    assert np.array_equal(profiles.user, targets.user), "the users of a split are those who are ranked"
    return {
        "groups": {
            grouping.name: quality_by_group(targets.rank, grouping, evaluation.num_bootstrap_samples, config.seed)
            for grouping in groupings_of(config, manifest, targets, catalogue, profiles)
        }
    }


def details_lines(quality: dict[str, Any]) -> Iterator[str]:
    """For a person: how far the groups of each kind are apart."""
    name = METRICS[0]
    for kind, found in quality.get("groups", {}).items():
        gap = found["gaps"].get(name)
        if gap is not None:
            values = {label: found["groups"][label][name] for label in (gap["best"], gap["worst"])}
            told = ", ".join(f"{value:.4f} for {label}" for label, value in values.items())
            low, high = gap["ci95"]
            yield f"by {kind}: NDCG@10 {told}; gap {gap['difference']:.4f} ({low:.4f} to {high:.4f})"
