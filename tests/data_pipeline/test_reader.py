"""A rank reads its own users' bytes and hardly any other; several threads decode a row group once."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.schema import DataConfig
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import load_manifest
from data_pipeline.store.row_groups import RowGroups
from data_pipeline.stream.sequence_stream import SequenceStream
from stores import random_histories, write_store

NUM_USERS = 200_000
NUM_FILES = 4
MAX_AMPLIFICATION = 1.05


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """196 row groups in four files."""
    items, times = random_histories(NUM_USERS, longest=6)
    return write_store(tmp_path_factory.mktemp("store") / "a", items, times, part_users=51_200)  # NUM_FILES of them


def read_by_rank(store: str, rank: int, world_size: int, num_epochs: int = 1) -> tuple[int, float]:
    """Bytes that a rank read in so many epochs, and bytes of its users."""
    config = DataConfig(store=store, global_batch_size=4096, num_data_shards=4, prefetch_batches=0, prefetch_mib=0)
    stream = SequenceStream(config, seed=0, rank=rank, world_size=world_size)
    for _ in islice(stream.batches(), stream.steps_per_epoch * num_epochs):
        pass
    return stream.num_bytes_read, stream.num_bytes_needed()


@pytest.mark.parametrize("world_size", [2, 4])
def test_an_epoch_of_a_rank_reads_its_own_bytes(large_store, world_size):
    for rank in range(world_size):
        read, needed = read_by_rank(large_store, rank, world_size)
        assert 1 <= read / needed <= MAX_AMPLIFICATION


def test_the_bytes_of_the_ranks_add_up_to_the_store(large_store):
    alone = read_by_rank(large_store, 0, 1)[1]
    assert sum(read_by_rank(large_store, rank, 4)[1] for rank in range(4)) == pytest.approx(alone)


def test_a_cache_of_nothing_reads_every_epoch_anew(large_store, monkeypatch):
    once = read_by_rank(large_store, 0, 2)[0]
    monkeypatch.setattr("data_pipeline.stream.shuffle_window.CACHE_BYTES", 0)
    monkeypatch.setattr("data_pipeline.store.history_reader.CACHE_BYTES", 0)
    assert read_by_rank(large_store, 0, 2, num_epochs=2)[0] == pytest.approx(2 * once, rel=0.05)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not tell what a process reads")
def test_the_bytes_counted_are_those_that_the_process_reads(large_store):
    reader = HistoryReader(large_store, load_manifest(large_store))
    before = bytes_of_this_process()
    reader.read(50_000, 150_000)
    assert reader.num_bytes_read == pytest.approx(bytes_of_this_process() - before, rel=0.02)


def bytes_of_this_process() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


def test_threads_decode_a_row_group_once_and_get_what_one_thread_gets(large_store):
    reader = HistoryReader(large_store, load_manifest(large_store))
    ranges = [(start, start + 700) for start in range(0, 90_000, 350)]  # parts of row groups, never a whole one
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda users: reader.read(*users), ranges))
    once = HistoryReader(large_store, load_manifest(large_store))
    for users, histories in zip(ranges, found, strict=True):
        expected = once.read(*users)
        np.testing.assert_array_equal(histories.item, expected.item)
        np.testing.assert_array_equal(histories.offsets, expected.offsets)
    assert reader.num_bytes_read == once.num_bytes_read


def test_no_two_threads_read_through_one_open_file(large_store, monkeypatch):
    """While threads shared one, pyarrow stood still once in thousands of row groups."""
    read, lock = pq.ParquetFile.read_row_group, threading.Lock()
    reading: Counter[int] = Counter()
    most: Counter[int] = Counter()

    def counted(file, *args, **kwargs):
        with lock:
            reading[id(file)] += 1
            most[id(file)] = max(most[id(file)], reading[id(file)])
        try:
            time.sleep(1e-4)
            return read(file, *args, **kwargs)
        finally:
            with lock:
                reading[id(file)] -= 1

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    reader = HistoryReader(large_store, load_manifest(large_store))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda start: reader.read(start, start + 1024), range(0, 190 * 1024, 1024)))
    assert len(most) > NUM_FILES, "threads have met, so that files were opened anew"
    assert set(most.values()) == {1}


def test_what_was_read_is_not_kept_by_the_open_files(large_store):
    row_groups = RowGroups(large_store, load_manifest(large_store))
    before = pa.total_allocated_bytes()
    for index in range(0, len(row_groups), 7):
        row_groups.table(index, ["item", "timestamp"])
    assert pa.total_allocated_bytes() == before


def test_a_row_group_that_was_taken_whole_is_not_kept_and_a_part_is(large_store):
    reader = HistoryReader(large_store, load_manifest(large_store))
    reader.read(0, 500)
    once = reader.num_bytes_read
    reader.read(500, 1024)
    assert reader.num_bytes_read == once
    reader.read(1024, 2048)
    twice = reader.num_bytes_read
    reader.read(1024, 2048)
    assert reader.num_bytes_read - twice == twice - once > 0


@pytest.mark.parametrize("share_kept", [0.3, 0.6])
def test_the_segments_that_fit_stay_over_epochs_and_the_others_are_read_anew(large_store, monkeypatch, share_kept):
    decoded = HistoryReader(large_store, load_manifest(large_store)).num_bytes_decoded(0, NUM_USERS)
    monkeypatch.setattr(
        "data_pipeline.stream.shuffle_window.MIN_USED_FRACTION", 0.0
    )  # what is kept is what was decoded
    monkeypatch.setattr("data_pipeline.stream.shuffle_window.CACHE_BYTES", int(share_kept * decoded))
    monkeypatch.setattr("data_pipeline.store.history_reader.CACHE_BYTES", 0)
    once = read_by_rank(large_store, 0, 1)[0]
    for num_epochs in (2, 3):
        read = read_by_rank(large_store, 0, 1, num_epochs)[0]
        assert read == pytest.approx(once * (1 + (num_epochs - 1) * (1 - share_kept)), rel=0.05)


def test_threads_that_read_through_one_file_get_what_one_thread_gets(large_store):
    num_users = load_manifest(large_store).num_users
    reader = HistoryReader(large_store, load_manifest(large_store))
    ranges = [(start, min(start + 1024, num_users)) for start in range(0, num_users, 1024)] * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda users: reader.read(*users), ranges))
    whole = HistoryReader(large_store, load_manifest(large_store)).read(0, num_users)
    for (start, end), histories in zip(ranges, found, strict=True):
        expected = slice(whole.offsets[start], whole.offsets[end])
        np.testing.assert_array_equal(histories.item, whole.item[expected])
        np.testing.assert_array_equal(histories.timestamp, whole.timestamp[expected])
