"""Losses against their plain definitions; sampled softmax against the full one."""

import pytest
import torch
from torch.nn import functional

from configs.schema import BCEConfig, GBCEConfig, Precision, SampledSoftmaxConfig
from models.collectives import SingleProcess
from models.loss.full_softmax import full_softmax_loss, suitable_chunk_tokens
from models.loss.loss_inputs import LossInputs
from models.loss.negatives import NegativeSampler
from models.loss.sampled import sampled_loss


def _random(num: int = 13, num_items: int = 9, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    query = torch.randn(num, width, requires_grad=True)
    item = torch.randn(num_items, width, requires_grad=True)
    return query, item, torch.randint(num_items, (num,))


@pytest.mark.parametrize("chunk_tokens", [1, 5, 13, 100])
def test_full_softmax_and_its_gradients_equal_cross_entropy(chunk_tokens):
    query, item, target = _random()
    expected = functional.cross_entropy(query @ item.t(), target, reduction="sum")
    expected_grads = torch.autograd.grad(expected * 3, [query, item])
    loss = full_softmax_loss(query, target, item, range(9), chunk_tokens=chunk_tokens, collectives=SingleProcess())
    grads = torch.autograd.grad(loss * 3, [query, item])
    torch.testing.assert_close(loss.float(), expected)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_full_softmax_is_stable_for_large_logits(scale: float):
    query, item, target = _random()
    expected = functional.cross_entropy(query * scale @ item.t(), target, reduction="sum")
    expected_grads = torch.autograd.grad(expected, [query, item])
    loss = full_softmax_loss(query * scale, target, item, range(9), chunk_tokens=4, collectives=SingleProcess())
    torch.testing.assert_close(loss.float(), expected)
    for ours, theirs in zip(torch.autograd.grad(loss, [query, item]), expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_full_softmax_in_bfloat16_is_near_the_exact_one():
    query, item, target = _random(num=400, num_items=60, width=16)
    exact, near = (
        full_softmax_loss(
            query, target, item, range(60), chunk_tokens=64, collectives=SingleProcess(), precision=precision
        )
        for precision in (Precision.FP32, Precision.BF16)
    )
    assert float(near) == pytest.approx(float(exact), rel=1e-3)
    assert float(near) != float(exact)
    for ours, theirs in zip(*(torch.autograd.grad(loss, [query, item]) for loss in (near, exact)), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.01


@pytest.mark.parametrize("num_rows", [1, 3_416, 237_788, 10**9, 10**12])
@pytest.mark.parametrize(("precision", "num_bytes"), [(Precision.FP32, 4), (Precision.BF16, 2)])
def test_a_chunk_on_a_gpu_takes_two_gib_or_is_one_row(num_rows: int, precision: Precision, num_bytes: int):
    chunk = suitable_chunk_tokens(torch.device("cuda"), num_rows, precision)
    assert chunk == 1 or chunk * num_rows * num_bytes <= 2**31 < (chunk + 1) * num_rows * num_bytes


def test_full_softmax_of_no_predictions_is_zero():
    query = torch.zeros(0, 4, requires_grad=True)
    loss = full_softmax_loss(
        query,
        torch.zeros(0, dtype=torch.int64),
        torch.ones(9, 4),
        range(9),
        chunk_tokens=8,
        collectives=SingleProcess(),
    )
    assert float(loss) == 0


def test_sampled_softmax_with_log_q_estimates_the_full_softmax():
    query, item, target = _random()
    config = SampledSoftmaxConfig(num_negatives=200_000, popularity_exponent=0.7)
    sampler = NegativeSampler(config, torch.arange(1, 10).numpy(), seed=0)
    negatives = sampler.draw(0, target, SingleProcess())
    found = LossInputs(query, target, item[target], item[negatives])
    sampled = sampled_loss(found, negatives, sampler.log_q, config, num_items=9)
    full = functional.cross_entropy(query @ item.t(), target, reduction="sum")
    torch.testing.assert_close(sampled, full, rtol=0.01, atol=0)


def test_sampled_softmax_without_log_q_is_cross_entropy_over_the_target_and_the_negatives_that_are_not_it():
    query, item, target = _random()
    negatives = torch.tensor([0, 4, 4, 7])
    config = SampledSoftmaxConfig(num_negatives=4, correct_log_q=False)
    found = LossInputs(query, target, item[target], item[negatives])
    expected = torch.zeros(())
    for row, wanted in zip(query, target.tolist(), strict=True):
        others = [each for each in negatives.tolist() if each != wanted]
        expected = expected - torch.log_softmax(item[[wanted, *others]] @ row, 0)[0]
    torch.testing.assert_close(sampled_loss(found, negatives, torch.randn(9), config, num_items=9), expected)


def test_in_batch_negatives_are_corrected_for_their_frequency():
    query, item, _ = _random()
    target = torch.arange(9).repeat_interleave(torch.arange(1, 10))[:45]
    config = SampledSoftmaxConfig(num_negatives=100_000, in_batch_negatives=100_000)
    sampler = NegativeSampler(config, torch.arange(1, 10).numpy(), seed=0)
    negatives = sampler.draw(0, target, SingleProcess())
    found = LossInputs(query, target[:13], item[target[:13]], item[negatives])
    sampled = sampled_loss(found, negatives, sampler.log_q, config, num_items=9)
    full = functional.cross_entropy(query @ item.t(), target[:13], reduction="sum")
    torch.testing.assert_close(sampled, full, rtol=0.01, atol=0)


def test_bce_leaves_out_negatives_that_are_the_target():
    query, item, target = _random()
    negatives = torch.arange(9)
    found = LossInputs(query, target, item[target], item)
    score = query @ item.t()
    label = functional.one_hot(target, 9).float()
    expected = functional.binary_cross_entropy_with_logits(score, label, reduction="sum")
    ours = sampled_loss(found, negatives, torch.zeros(9), BCEConfig(), num_items=9)
    torch.testing.assert_close(ours, expected)


def test_gbce_without_calibration_weighs_the_positive_as_bce_and_with_it_by_the_sampling_rate():
    query, item, target = _random()
    negatives = torch.tensor([0, 1])
    found = LossInputs(query, target, item[target], item[negatives])
    bce, plain, full = (
        float(sampled_loss(found, negatives, torch.zeros(9), config, num_items=9))
        for config in (BCEConfig(), GBCEConfig(calibration=0.0), GBCEConfig(calibration=1.0))
    )
    positive = float(functional.softplus(-(query * item[target]).sum(1)).sum())
    assert plain == pytest.approx(bce)
    assert full == pytest.approx(bce - positive * (1 - 2 / 8), rel=1e-5)


def test_negatives_are_a_function_of_seed_and_step():
    sampler = NegativeSampler(SampledSoftmaxConfig(num_negatives=50), torch.ones(1000).numpy(), seed=3)
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(sampler.draw(5, none, SingleProcess()), sampler.draw(5, none, SingleProcess()))
    assert not torch.equal(sampler.draw(5, none, SingleProcess()), sampler.draw(6, none, SingleProcess()))
