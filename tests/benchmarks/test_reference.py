"""The padded reference is the same mathematics as ours, so a race between the two is fair."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.arithmetic import token_flop
from benchmarks.reference import PaddedReference, padded, reference_loss
from configs.schema import SampledSoftmaxConfig, SASRecConfig
from data_pipeline.batch import SequenceBatch
from models.attention.bucketed import buckets_of
from models.collectives import SingleProcess
from models.encoders.sasrec import SASRec
from models.loss.full_softmax import full_softmax_loss
from models.loss.loss_inputs import LossInputs
from models.loss.negatives import NegativeSampler
from models.loss.sampled import sampled_loss

NUM_ITEMS, MAX_HISTORY, NUM_NEGATIVES = 40, 12, 16
LENGTHS = [13, 2, 1, 7]


def batch_of(lengths: list[int]) -> SequenceBatch:
    item = torch.randint(NUM_ITEMS, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    return SequenceBatch(item, torch.tensor(lengths), torch.arange(len(lengths)), torch.zeros_like(item))


def our_loss(encoder: SASRec, item_vectors: Tensor, batch: SequenceBatch, negatives: Tensor | None) -> Tensor:
    histories = torch.split(batch.item, batch.lengths.tolist())
    inputs = torch.cat([history[:-1] for history in histories])
    target = torch.cat([history[1:] for history in histories])
    query = encoder(item_vectors[inputs], buckets_of(batch.lengths - 1))
    if negatives is None:
        items = range(NUM_ITEMS)
        total = full_softmax_loss(query, target, item_vectors, items, chunk_tokens=5, collectives=SingleProcess())
        return total / len(target)
    config = SampledSoftmaxConfig(num_negatives=NUM_NEGATIVES)
    log_q = NegativeSampler(config, np.ones(NUM_ITEMS, dtype=np.int64), seed=0).log_q
    found = LossInputs(query, target, item_vectors[target], item_vectors[negatives])
    return sampled_loss(found, negatives, log_q, config, NUM_ITEMS) / len(target)


@pytest.mark.parametrize("is_sampled", [False, True], ids=["full", "sampled"])
def test_the_reference_has_our_loss_and_our_gradients(is_sampled: bool) -> None:
    torch.manual_seed(0)
    config = SASRecConfig(embedding_dim=8, feed_forward_dim=12, dropout=0.0, attention_dropout=0.0, initial_std=0.5)
    encoder, item_vectors = SASRec(config, MAX_HISTORY), torch.randn(NUM_ITEMS, 8, requires_grad=True)
    reference = PaddedReference(config, NUM_ITEMS, MAX_HISTORY)
    reference.copy_weights(encoder, item_vectors)
    negatives = torch.randint(NUM_ITEMS, (NUM_NEGATIVES,)) if is_sampled else None
    ours = our_loss(encoder, item_vectors, batch_of(LENGTHS), negatives)
    theirs = reference_loss(reference, batch_of(LENGTHS), negatives)
    torch.testing.assert_close(theirs, ours.float())
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(reference.item.weight.grad, item_vectors.grad)
    torch.testing.assert_close(reference.position.weight.grad, encoder.position.weight.grad)
    attention = reference.encoder.layers[0].self_attn
    torch.testing.assert_close(attention.in_proj_weight.grad, encoder.blocks[0].qkv.weight.grad)


def test_the_reference_drops_what_we_drop() -> None:
    config = SASRecConfig(dropout=0.3, attention_dropout=0.1)
    layer = PaddedReference(config, NUM_ITEMS, MAX_HISTORY).encoder.layers[0]
    rates = [layer.dropout.p, layer.dropout1.p, layer.dropout2.p, layer.self_attn.dropout]
    assert rates == [0.3, 0.3, 0.3, 0.1]


def test_padding_keeps_every_prediction_once() -> None:
    inputs, targets, is_token = padded(batch_of(LENGTHS), MAX_HISTORY)
    histories = [history for history in torch.split(batch_of(LENGTHS).item, LENGTHS) if len(history) > 1]
    assert inputs[is_token].tolist() == [item for history in histories for item in history[:-1].tolist()]
    assert targets[is_token].tolist() == [item for history in histories for item in history[1:].tolist()]


def test_the_arithmetic_is_the_one_that_the_stated_bounds_rest_on() -> None:
    flop = token_flop(SASRec(SASRecConfig(), 200), 64, torch.full((3,), 200), 3417)
    assert flop.blocks == pytest.approx(98_000, rel=0.01)
    assert flop.attention == pytest.approx(102_000 / 2, rel=0.01)  # causal: half of what padding to 200 costs
    assert flop.head == pytest.approx(437_000, rel=0.01)
