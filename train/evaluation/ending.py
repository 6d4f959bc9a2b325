"""Why a run came to its end, and which key lets it go on."""

from configs.schema import RunConfig
from train.evaluation.verdict import METRIC
from train.progress import RunProgress


def ended_by(config: RunConfig, progress: RunProgress, step: int, num_steps: int) -> str:
    """The key that ended the run after ``step``: ``num_steps``, ``num_epochs``, ``evaluation.patience`` or
    ``train.target``."""
    if progress.has_reached(config.train.target_quality):
        return "train.target"
    if step < num_steps:
        return "evaluation.patience"
    return "num_steps" if config.num_steps else "num_epochs"


def ending_of(config: RunConfig, progress: RunProgress, step: int, num_steps: int) -> str:
    """One sentence for a person."""
    key = ended_by(config, progress, step, num_steps)
    if key == "train.target":
        found = progress.reached
        return (
            f"train.target={config.train.target}: the validation of step {found['step']} has {found['metric']} "
            f"{found['value']:.4f}, after {found['samples']:,} samples, {found['wall_s']:,.0f} s and "
            f"{found['usd']:.4f} USD; set train.target higher, or leave it out, to go on"
        )
    if key != "evaluation.patience":
        value = config.num_steps or config.num_epochs
        return f"{key}={value}: all {step} steps are trained; raise {key} to go on"
    metric = "" if config.evaluation.metric == METRIC else f" by {config.evaluation.metric}"
    text = (
        f"evaluation.patience={config.evaluation.patience}: the last {progress.validations_without_improvement} "
        f"validations were no better than that of step {progress.best_step}{metric}, so the run ends at step "
        f"{step} of {num_steps}; raise evaluation.patience to go on"
    )
    if progress.quality.get(METRIC, 0.0) > 0:
        return text
    seen = ", or keep seen items as candidates (evaluation.leave_out_seen=false)"
    return f"{text}. NDCG@10 was 0 each time: look at the targets{seen if config.evaluation.leave_out_seen else ''}"
