"""Squared error of a predicted number, such as a rating.

N predictions of this rank.
"""

import torch
from torch import Tensor

from models.loss.loss_inputs import LossInputs


def squared_error(predictions: LossInputs, is_probability: bool) -> Tensor:
    """Sum over this rank's predictions of ``(predicted - label) ** 2``; ``is_probability``: a sigmoid of the score is
    what is predicted."""
    assert predictions.offset is not None, "a model of users has an offset"
    assert predictions.label is not None, "the recommender knows the label's name"
    score = (predictions.query * predictions.target_vector).sum(1) + predictions.offset
    predicted = torch.sigmoid(score) if is_probability else score
    return (predicted - predictions.label).square().sum()
