"""The real collectives behind ``models.collectives.Collectives``."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from configs.errors import ConfigError, DataError, ToldByRankZero
from configs.schema import HardwareConfig
from models.collectives import nothing
from train.distributed.environment import check_environment, use_loopback

Value = TypeVar("Value")

WATCHDOG_FIRST_S = 60
"""Collectives wait so much longer than ``hardware.timeout_s``: the watchdog names the rank, a collective cannot."""
CONTROL_TIMEOUT = timedelta(days=7)


class ProcessGroupCollectives:
    """Every rank of the default process group, in rank order."""

    def __init__(self) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def gather(self, value: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """``[n_rank, ...]`` of every rank, concatenated; ranks may differ in ``n_rank``, which are ``sizes`` where
        these are known. Collective."""
        if self.world_size == 1:
            return value
        sizes = self._sizes(value) if sizes is None else sizes
        padded = value.new_zeros(max(sizes), *value.shape[1:])
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, in place. Collective."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def begin_sum(self, value: Tensor) -> Callable[[], object]:
        """Begin the sum over ranks, in place; ``value`` is it once the result has been called. Collective."""
        if self.world_size == 1:
            return nothing
        work = dist.all_reduce(value, async_op=True)
        assert work is not None, "an asynchronous collective of a member"
        return work.wait

    def begin_sum_of_own_rows(self, value: Tensor, sizes: Sequence[int]) -> Callable[[], Tensor]:
        """Begin the sum over ranks of the rows ``[sizes[rank], ...]`` of ``value`` ``[N, ...]`` that are this rank's;
        the result gives it. Added in the order of ranks: the same bits each time. Collective."""
        if self.world_size == 1:
            return lambda: value
        own = sizes[self.rank]
        received = value.new_empty(self.world_size * own, *value.shape[1:])
        work = dist.all_to_all_single(received, value, [own] * self.world_size, list(sizes), async_op=True)
        assert work is not None, "an asynchronous collective of a member"

        def summed() -> Tensor:
            work.wait()
            return received.view(self.world_size, own, *value.shape[1:]).sum(0)

        return summed

    def max(self, value: Tensor) -> Tensor:
        """The maximum over ranks, in place. Collective."""
        if self.world_size > 1:
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return value

    def exchange(self, value: Tensor, sizes: list[int]) -> Tensor:
        """The rows ``[n, ...]`` that the ranks have for this one, in rank order; of ``value`` the first ``sizes[0]``
        go to rank 0, and so on. Collective."""
        if self.world_size == 1:
            return value
        sent = torch.tensor(sizes, device=value.device)
        expected = torch.empty_like(sent)
        dist.all_to_all_single(expected, sent)
        received = value.new_empty(int(expected.sum()), *value.shape[1:])
        dist.all_to_all_single(received, value.contiguous(), expected.tolist(), sizes)
        return received

    def _sizes(self, value: Tensor) -> list[int]:
        own = torch.tensor([len(value)], device=value.device)
        sizes = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(sizes, own)
        return [int(size) for size in sizes]


def on_rank_zero(action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
    """Run ``action`` on rank 0 alone; what goes wrong there is a :class:`ConfigError` on every rank of ``group``, by
    default of all. Collective."""
    message: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            action()
        except (ConfigError, DataError, OSError) as error:
            message = [str(error)]
    dist.broadcast_object_list(message, src=0, group=group)
    if message[0] is not None:
        raise ConfigError(message[0]) if dist.get_rank() == 0 else ToldByRankZero(message[0])


def from_rank_zero(action: Callable[[], Value], group: dist.ProcessGroup | None = None) -> Value:
    """What ``action`` returns on rank 0, on every rank of ``group``, by default of all; what goes wrong there is a
    :class:`ConfigError` on every rank. Collective."""
    found: list[Value] = []
    on_rank_zero(lambda: found.append(action()), group)
    box = [found[0] if found else None]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]  # type: ignore[return-value]


def on_all_ranks(action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
    """Run ``action`` on every rank; what goes wrong on one is a :class:`ConfigError` on all. Collective."""
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, _error_of(action), group=group)
    if told := [message for message in messages if message is not None]:
        raise ConfigError(told[0])


def control_group() -> dist.ProcessGroup:
    """A new gloo group of all ranks, for what must not mix with training's own collectives. Collective.

    It waits as long as the watchdog lets it, which knows ``hardware.timeout_s``: one rank may send files for an hour.
    """
    group = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    assert group is not None, "every rank is a member"
    return group


def is_rank_zero() -> bool:
    """Whether this rank speaks and writes for all."""
    return dist.get_rank() == 0


@contextmanager
def groups_freed() -> Iterator[None]:
    """Free the groups that the block makes when it ends well: each holds sockets and threads, and one process may
    train and rank many times. Nothing may use them any more. Collective."""
    known = set(dist.distributed_c10d._world.pg_map)
    yield
    for group in [each for each in dist.distributed_c10d._world.pg_map if each not in known]:
        dist.destroy_process_group(group)


def _error_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except (ConfigError, DataError, OSError) as error:
        return str(error)
    return None


@contextmanager
def process_group(config: HardwareConfig) -> Iterator[torch.device]:
    """The default process group, from torchrun's environment or of one process; yields this rank's device.

    A group that is there already is used and left alone.
    """
    check_environment(config, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):  # both may be missing
        use_loopback()
    timeout = timedelta(seconds=config.timeout_s + WATCHDOG_FIRST_S)
    backend = "gloo" if config.device == "cpu" else "nccl"
    torch.set_num_threads(config.num_threads)
    if dist.is_initialized():
        yield _device(config)
        return
    if dist.is_torchelastic_launched():
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    try:
        yield _device(config)
    finally:
        dist.destroy_process_group()


def _device(config: HardwareConfig) -> torch.device:
    if config.device == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", dist.get_node_local_rank(fallback_rank=0))
    torch.cuda.set_device(device)
    return device
