"""The FLOP of steps are those that torch counts, whatever their batches; a device's rate is measured or given."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arithmetic import token_flop
from configs.schema import FullSoftmaxConfig, HardwareConfig, MSEConfig, SampledSoftmaxConfig, SASRecConfig, UserInput
from configs.schema.model import BERT4RecConfig, EncoderConfig
from data_pipeline.batch import SequenceBatch
from models.encoders.build import build_encoder
from train.accounting.flop import FORWARD_AND_BACKWARD, FlopCounter, largest_flop_per_s, num_candidates

NUM_ITEMS, WIDTH = 50, 16
LENGTHS = [[3, 1, 8], [2], [5, 5]]
"""Events of the histories of three steps."""


def counter_of(model: EncoderConfig, loss: object = None) -> FlopCounter:
    return FlopCounter(build_encoder(model, max_tokens=10), model, loss or FullSoftmaxConfig(), NUM_ITEMS)  # type: ignore[arg-type]


def batch_of(lengths: list[int]) -> SequenceBatch:
    none = torch.zeros(sum(lengths), dtype=torch.int64)
    return SequenceBatch(none, torch.tensor(lengths), torch.zeros(len(lengths), dtype=torch.int64), none)


def test_steps_are_counted_as_the_arithmetic_of_the_encoder_has_it():
    """The last event of each history is a target, no input."""
    counter = counter_of(SASRecConfig(embedding_dim=WIDTH))
    for lengths in LENGTHS:
        counter.count(batch_of(lengths))
    inputs = torch.tensor([length - 1 for lengths in LENGTHS for length in lengths if length > 1])
    flop = token_flop(build_encoder(SASRecConfig(embedding_dim=WIDTH), 10), WIDTH, inputs, NUM_ITEMS)
    assert counter.take() == pytest.approx(flop.total * int(inputs.sum()))
    assert counter.take() == 0, "counted once"


def test_a_step_is_what_torch_counts():
    """Of histories with one input, where causal attention is all of it, and of a whole softmax."""
    config = SASRecConfig(embedding_dim=WIDTH)
    counter, encoder = counter_of(config), build_encoder(config, max_tokens=10)
    counter.count(batch_of([2, 2, 2]))
    tokens, items = torch.randn(3, WIDTH, requires_grad=True), torch.randn(NUM_ITEMS, WIDTH, requires_grad=True)
    with FlopCounterMode(display=False) as counted:
        (encoder(tokens, encoder.layout_of(torch.ones(3, dtype=torch.int64), 3)) @ items.t()).sum().backward()
    assert counter.take() == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_a_users_own_token_is_read_and_predicts_nothing():
    plain, with_user = (
        counter_of(SASRecConfig(embedding_dim=WIDTH, user_input=user))
        for user in (UserInput.NONE, UserInput.FIRST_TOKEN)
    )
    plain.count(batch_of([4]))
    with_user.count(batch_of([3]))
    head = FORWARD_AND_BACKWARD * 2 * WIDTH * NUM_ITEMS
    assert plain.take() - with_user.take() == pytest.approx(head), "three tokens each, of which three or two predict"


def test_what_is_hidden_is_predicted():
    """All events are read; where none is drawn, the last one is hidden."""
    config = BERT4RecConfig(embedding_dim=WIDTH, mask_fraction=0.9, mask_last_fraction=0.0)
    counter, encoder = counter_of(config), build_encoder(config, max_tokens=10)
    counter.count(batch_of([6]))
    flop = encoder.flop(torch.tensor([6]))
    expected = 6 * (flop.linear + flop.attention) + (0.9 * 6 + 0.1**6) * 2 * WIDTH * NUM_ITEMS
    assert counter.take() == pytest.approx(FORWARD_AND_BACKWARD * expected)


def test_batches_without_a_prediction_are_nothing():
    counter = counter_of(SASRecConfig(embedding_dim=WIDTH))
    counter.count(batch_of([1, 1]))
    counter.count(batch_of([]))
    assert counter.take() == 0


def test_candidates_are_those_of_the_loss():
    sampled = SampledSoftmaxConfig(num_negatives=7)
    assert num_candidates(sampled, NUM_ITEMS) == 8 + sampled.in_batch_negatives
    assert num_candidates(FullSoftmaxConfig(), NUM_ITEMS) == NUM_ITEMS
    assert num_candidates(MSEConfig(label="rating"), NUM_ITEMS) == 1


def test_a_rate_is_given_or_measured_and_draws_no_random_number():
    given = HardwareConfig(device="cpu", peak_tflops_per_device=2.5)
    assert largest_flop_per_s(given, torch.device("cpu"), torch.float32) == 2.5e12
    before = torch.get_rng_state()
    assert largest_flop_per_s(HardwareConfig(device="cpu"), torch.device("cpu"), torch.float32) > 0
    assert torch.equal(torch.get_rng_state(), before)
