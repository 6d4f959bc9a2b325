"""The quality of the exported model beside that of the run's, over the same users."""

from dataclasses import replace
from typing import Any

from torch import nn

from configs.schema import RunConfig, Split
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from train.evaluation.metrics import quality_of
from train.evaluation.protocol import target_ranks_of
from train.state import TrainState


def measure(
    exported: nn.Module, state: TrainState, config: RunConfig, manifest: Manifest, is_held_out: bool
) -> dict[str, Any]:
    """Metrics of both over every user with a test target, ranked exactly; empty where there is none.

    ``is_held_out`` says that the model was not trained on the targets; else only the difference of both means
    something. Collective.
    """
    if config.data.split is Split.NONE:
        return {}
    ranks = {
        "run": target_ranks_of(state, config, manifest.num_items, Subset.TEST),
        "exported": target_ranks_of(replace(state, model=exported), config, manifest.num_items, Subset.TEST),
    }
    if not len(ranks["run"]):
        return {}
    quality = {name: quality_of(found) for name, found in ranks.items()}
    run, own = quality["run"]["ndcg@10"], quality["exported"]["ndcg@10"]
    return {
        "split": Subset.TEST.value,
        "is_held_out": is_held_out,
        "users": len(ranks["run"]),
        "ndcg@10_loss": (run - own) / run if run else 0.0,
        **quality,
    }
