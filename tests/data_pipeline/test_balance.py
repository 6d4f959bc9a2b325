"""Imbalance over ranks, against numbers that one can do in one's head."""

import numpy as np
import pytest

from configs.schema import DataConfig
from data_pipeline.stream.balance import Imbalance, rank_imbalance, shard_imbalance
from data_pipeline.stream.sequence_stream import SequenceStream
from stores import random_histories, write_store


def test_the_fullest_rank_is_held_against_the_mean():
    assert rank_imbalance(np.array([[10, 10], [30, 10], [0, 0]])) == Imbalance(1.25, 1.5)


def test_a_rank_has_the_tokens_of_its_data_shards():
    tokens = np.array([[1, 3, 2, 2]])
    assert shard_imbalance(tokens, 2) == Imbalance(1.0, 1.0)
    assert shard_imbalance(tokens, 4) == Imbalance(1.5, 1.5)
    assert shard_imbalance(tokens, 1) == Imbalance(1.0, 1.0)


def test_no_tokens_at_all_are_even():
    assert rank_imbalance(np.zeros((3, 2))) == Imbalance(1.0, 1.0)


@pytest.mark.parametrize("mode", [{}, {"global_batch_tokens": 900}])
def test_tokens_by_lane_are_those_of_a_rank_that_owns_the_lane(tmp_path, mode):
    store = write_store(tmp_path / "s", *random_histories(2500))
    config = DataConfig(store=store, global_batch_size=160, num_data_shards=4, **mode)
    streams = [SequenceStream(config, seed=0, rank=rank, world_size=4) for rank in range(4)]
    alone = SequenceStream(config, seed=0, rank=0, world_size=1)
    own = [next(stream.batches()).num_tokens for stream in streams]
    assert alone.tokens_by_shard(next(alone.batches())).tolist() == own
