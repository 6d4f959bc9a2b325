"""What a report tells beyond means over all targets: quality by group, and what the lists are like."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from configs.schema import RunConfig
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from train.evaluation.census import catalogue_of, profiles_of
from train.evaluation.diversity import diversity_of
from train.evaluation.group_quality import METRICS, quality_by_group
from train.evaluation.groups import event_columns, groupings_of, item_groupings_of
from train.evaluation.list_quality import list_quality, mean_with_interval
from train.evaluation.lists import Lists
from train.evaluation.user_ranks import RankedTargets


def details_of(
    targets: RankedTargets,
    config: RunConfig,
    manifest: Manifest,
    go_on: Callable[[], None] = lambda: None,
    lists: Lists | None = None,
) -> dict[str, Any]:
    """``groups`` of the ranked test ``targets``, by each of ``evaluation.groups``, and ``lists`` where some were
    made. Not collective.

    ``go_on`` is called between reads, and may raise. Raises as :func:`groupings_of`.
    """
    if not config.evaluation.groups and lists is None:
        return {}
    data, evaluation = config.data, config.evaluation
    catalogue = catalogue_of(data, manifest, go_on)
    profiles = profiles_of(data, manifest, Subset.TEST, catalogue, event_columns(config, manifest), go_on)
    assert np.array_equal(profiles.user, targets.user), "the users of a split are those who are ranked"
    found: dict[str, Any] = {}
    if evaluation.groups:
        found["groups"] = {
            grouping.name: quality_by_group(targets.rank, grouping, evaluation.num_bootstrap_samples, config.seed)
            for grouping in groupings_of(config, manifest, targets, catalogue, profiles)
        }
    if lists is not None:
        of_items = item_groupings_of(config, manifest, catalogue)
        found["lists"] = list_quality(lists, catalogue, profiles, targets.item, of_items)
        measure, distances = diversity_of(lists.item, config, manifest, go_on)
        if distances is not None:
            found["lists"]["diversity"] = {"by": measure, **mean_with_interval(distances)}
    return found


def details_lines(quality: dict[str, Any]) -> Iterator[str]:
    """For a person: how far the groups of each kind are apart, and what the lists are like."""
    yield from _group_lines(quality)
    if "lists" in quality:
        yield _lists_line(quality["lists"])


def _lists_line(found: dict[str, Any]) -> str:
    parts = [f"{found['coverage']:.1%} of the catalogue", f"exposure Gini {found['exposure_gini']:.3f}"]
    if found["novelty"]["value"] is not None:
        parts.append(f"novelty {found['novelty']['value']:.2f} bits")
    if found.get("diversity", {}).get("value") is not None:
        parts.append(f"diversity {found['diversity']['value']:.3f} by {found['diversity']['by']}")
    if found["popularity_lift"]["value"] is not None:
        parts.append(f"popularity lift {found['popularity_lift']['value']:+.0%}")
    return f"lists of {found['k']}: {', '.join(parts)}"


def _group_lines(quality: dict[str, Any]) -> Iterator[str]:
    name = METRICS[0]
    for kind, found in quality.get("groups", {}).items():
        gap = found["gaps"].get(name)
        if gap is not None:
            values = {label: found["groups"][label][name] for label in (gap["best"], gap["worst"])}
            told = ", ".join(f"{value:.4f} for {label}" for label, value in values.items())
            low, high = gap["ci95"]
            yield f"by {kind}: NDCG@10 {told}; gap {gap['difference']:.4f} ({low:.4f} to {high:.4f})"
