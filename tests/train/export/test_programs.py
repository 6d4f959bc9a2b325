"""Every encoder that says it can be exported is a program of any number and length of histories."""

import pytest
import torch

from configs.schema.model import TimeInput
from encoder_case import MAX_HISTORY, NAMES, small_config, small_recommender
from models.dense_recommender import DenseRecommender
from train.export.program import encoder_program, load_program, program_bytes

CHOICES = {"hstu": {"time": TimeInput.NONE}}


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in NAMES if name != "sasrec"])  # test_export.py exports it whole
def test_the_program_of_an_encoder_answers_as_it_does(name: str) -> None:
    choices = CHOICES.get(name, {})
    if small_config(name, **choices).why_no_export:
        pytest.skip(small_config(name, **choices).why_no_export)
    recommender = small_recommender(name, **choices)
    program = load_program(program_bytes(encoder_program(recommender, MAX_HISTORY)))
    dense = DenseRecommender(recommender).eval()
    for num, longest in ((1, 1), (3, 5), (2, MAX_HISTORY)):
        tokens, lengths = torch.randn(num, longest, 8), torch.randint(1, longest + 1, (num,))
        torch.testing.assert_close(program(item_vectors=tokens, lengths=lengths), dense(tokens, lengths))
