"""The full softmax over a catalogue that ranks share, against cross-entropy over the whole one."""

import collections

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional

from models.loss.full_softmax import full_softmax_loss
from models.loss.item_shard import slice_of
from ranks import run_ranks
from train.distributed.collectives import ProcessGroupCollectives

NUM_ITEMS, WIDTH = 11, 4
NUM_PREDICTIONS = [7, 0, 6]
"""Of each of three ranks."""


def parts(scale: float) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Queries and targets by rank, and the catalogue."""
    torch.manual_seed(0)
    queries = [torch.randn(num, WIDTH) * scale for num in NUM_PREDICTIONS]
    targets = [torch.randint(NUM_ITEMS, (num,)) for num in NUM_PREDICTIONS]
    return queries, targets, torch.randn(NUM_ITEMS, WIDTH)


def loss_and_gradients(chunk_tokens: int, scale: float) -> tuple[list[torch.Tensor], dict[str, int]]:
    """Of one rank, and how often it began each collective."""
    begun = collections.Counter[str]()
    for name in ("all_reduce", "all_gather", "all_to_all_single"):
        real = getattr(dist, name)

        def counted(*args, real=real, name=name, **kwargs):
            begun[name] += 1
            return real(*args, **kwargs)

        setattr(dist, name, counted)
    shared, rank = ProcessGroupCollectives(), dist.get_rank()
    queries, targets, items = parts(scale)
    ours = slice_of(NUM_ITEMS, shared)
    query, vectors = queries[rank].requires_grad_(), items[ours.start : ours.stop].clone().requires_grad_()
    loss = full_softmax_loss(query, targets[rank], vectors, ours, chunk_tokens=chunk_tokens, collectives=shared)
    return [loss.detach(), *torch.autograd.grad(loss * 3, [query, vectors])], dict(begun)


@pytest.mark.parametrize(
    ("chunk_tokens", "scale", "num_chunks"),
    [(1, 1.0, 13), (4, 1.0, 4), (5, 50.0, 3), (7, 1.0, 1), (13, 1.0, 1), (100, 50.0, 1)],
)
def test_the_loss_and_its_gradients_on_three_ranks_are_those_of_one(chunk_tokens: int, scale: float, num_chunks: int):
    queries, targets, items = parts(scale)
    query, items = torch.cat(queries).requires_grad_(), items.requires_grad_()
    loss = functional.cross_entropy(query @ items.t(), torch.cat(targets), reduction="sum")
    query_grad, item_grad = torch.autograd.grad(loss * 3, [query, items])
    found = run_ranks(3, loss_and_gradients, chunk_tokens, scale)
    for (rank_loss, _, _), begun in found:
        torch.testing.assert_close(rank_loss.float(), loss.detach())
        num_sums = num_chunks if scale == 1 else 2 * num_chunks  # large logits: of each chunk the largest too
        assert begun == {"all_gather": 2, "all_reduce": num_sums, "all_to_all_single": 1}
    torch.testing.assert_close(torch.cat([each[0][1] for each in found]), query_grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([each[0][2] for each in found]), item_grad, rtol=1e-4, atol=1e-5)
