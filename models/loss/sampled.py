"""Losses over one shared set of negatives: sampled softmax with logQ, BCE, gBCE.

n predictions of this rank, M negatives, D the width.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from configs.schema import BCEConfig, GBCEConfig, SampledConfig, SampledSoftmaxConfig
from models.loss.loss_inputs import LossInputs


def sampled_loss(
    predictions: LossInputs, negatives: Tensor, log_q: Tensor, config: SampledConfig, num_items: int
) -> Tensor:
    """Sum of the loss over this rank's predictions; ``negatives`` ``[M]`` are the ids of the candidate vectors.

    A negative that is the target of a prediction does not count for it.
    """
    target = predictions.target
    positive = (predictions.query * predictions.target_vector).sum(1)
    if predictions.offset is not None:
        positive = positive + predictions.offset
    is_target = target[:, None] == negatives
    match config:
        case SampledSoftmaxConfig():
            shift = log_q.new_zeros(len(negatives))
            if config.correct_log_q:
                shift = -log_q[negatives] - math.log(len(negatives))
            negative = torch.addmm(shift, predictions.query, predictions.candidate_vector.t())
            if predictions.offset is not None:
                negative = negative + predictions.offset[:, None]
            negative = negative.masked_fill_(is_target, float("-inf"))
            total = torch.logaddexp(positive, torch.logsumexp(negative, 1))
            return (total - positive).sum()
        case GBCEConfig():
            rate = min(len(negatives) / max(num_items - 1, 1), 1.0)
            power = rate * (config.calibration * (1 - 1 / rate) + 1 / rate)
            return _bce(predictions, positive, is_target, power)
        case BCEConfig():
            return _bce(predictions, positive, is_target, 1.0)
        case _:
            raise AssertionError(
                f"{type(config).__name__} has no case here: a loss without its own would train another"
            )


def _bce(predictions: LossInputs, positive: Tensor, is_target: Tensor, power: float) -> Tensor:
    """``-power * log sigmoid(positive) - sum log(1 - sigmoid(negative))``; power < 1 is gBCE."""
    negative = predictions.query @ predictions.candidate_vector.t()
    if predictions.offset is not None:
        negative = negative + predictions.offset[:, None]
    against = functional.softplus(negative).masked_fill(is_target, 0.0).sum()
    return power * functional.softplus(-positive).sum() + against
