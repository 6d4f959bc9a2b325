"""The best that anyone can reach, where the log was made by a known model; for every other log there is none."""

from configs.schema import RunConfig, Split
from data_pipeline.split import Subset
from data_pipeline.synthetic import oracle_ndcg


def oracle_report(config: RunConfig) -> dict[str, float]:
    """``oracle_ndcg@10`` on the test targets, where the oracle answers the question that the model was asked; else
    nothing. Not collective."""
    if not _is_asked_the_same(config):
        return {}
    return {"oracle_ndcg@10": oracle_ndcg(config.data.synthetic, config.data.store, Subset.TEST, config.data.version)}


def _is_asked_the_same(config: RunConfig) -> bool:
    """Whether the store holds the whole log that ``data.synthetic`` describes, and the same targets are ranked."""
    data = config.data
    is_whole = data.min_user_events == data.min_item_events == 1 and not data.event_types
    is_same_task = data.split is Split.LEAVE_ONE_OUT and config.evaluation.leave_out_seen
    return data.synthetic.num_users > 0 and is_whole and is_same_task
