"""Reading ahead changes when things are loaded, never which, and never holds more than its budget."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from configs.schema import DataConfig, LongHistories, Split
from data_pipeline.split import split_rule
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.order import Window, segments_of
from data_pipeline.stream.read_ahead import NUM_THREADS, ReadAhead
from data_pipeline.stream.sequence_stream import SequenceStream
from data_pipeline.stream.sequences import sequence_rule
from data_pipeline.stream.shuffle_window import TrainSegments
from stores import random_histories, write_store


@dataclass
class Thing:
    place: int
    num_bytes: int


class Source:
    """Things whose loading takes up to ``at_most`` bytes and which keep half of them; counts what lies ahead."""

    def __init__(self, num_places: int) -> None:
        self.at_most = np.random.default_rng(0).integers(1, 100, num_places).tolist()
        self.loaded_ahead: list[int] = []
        self.bytes_ahead = self.peak = 0
        self.consumer = threading.get_ident()
        self.lock = threading.Lock()

    def load(self, place: int) -> Thing:
        thing = Thing(place, self.at_most[place] // 2)
        if threading.get_ident() == self.consumer:
            return thing
        self.add(self.at_most[place])
        time.sleep(1e-4)
        self.add(thing.num_bytes - self.at_most[place])
        with self.lock:
            self.loaded_ahead.append(place)
        return thing

    def add(self, num_bytes: int) -> None:
        with self.lock:
            self.bytes_ahead += num_bytes
            self.peak = max(self.peak, self.bytes_ahead)


def ahead_of(source: Source, num_bytes: int, num_places: int = 1000) -> ReadAhead[int, Thing]:
    places = iter(range(len(source.at_most)))
    return ReadAhead(places, source.load, source.at_most.__getitem__, num_bytes=num_bytes, num_places=num_places)


@pytest.mark.parametrize("num_bytes", [0, 50, 99, 1000])
def test_every_budget_gives_the_same_things_in_order(num_bytes):
    source = Source(60)
    ahead = ahead_of(source, num_bytes)
    assert [ahead.take(place).place for place in range(60)] == list(range(60))
    ahead.close()


@pytest.mark.parametrize("num_bytes", [50, 99, 300])
def test_the_bytes_ahead_never_exceed_the_budget(num_bytes, monkeypatch):
    source = Source(200)
    ahead = ahead_of(source, num_bytes)
    were_ahead: set[int] = set()
    fill = ahead._fill

    def counted_fill() -> None:
        """What was handed over no longer lies ahead; the source cannot see that."""
        for place in were_ahead - {held.place for held in ahead._ahead}:
            source.add(-(source.at_most[place] // 2))
        fill()
        were_ahead.clear()
        were_ahead.update(held.place for held in ahead._ahead)

    monkeypatch.setattr(ahead, "_fill", counted_fill)
    for place in range(200):
        ahead.take(place)
    ahead.close()
    assert source.bytes_ahead == 0
    assert num_bytes / 2 < source.peak <= num_bytes


def test_a_thing_larger_than_the_budget_is_loaded_by_its_consumer_alone():
    source = Source(50)
    ahead = ahead_of(source, 60)
    for place in range(50):
        ahead.take(place)
    ahead.close()
    assert set(source.loaded_ahead) == {place for place, size in enumerate(source.at_most) if size <= 60}


def test_no_more_than_so_many_places_are_ahead():
    source = Source(50)
    ahead = ahead_of(source, 10**6, num_places=3)
    for place in range(10):
        ahead.take(place)
    ahead.close()
    assert max(source.loaded_ahead) <= 9 + 3


def test_an_error_reaches_the_consumer_at_its_place():
    def broken(place: int) -> Thing:
        if place == 2:
            raise OSError("disk is gone")
        return Thing(place, 1)

    ahead = ReadAhead(iter(range(9)), broken, lambda place: 1, num_bytes=100, num_places=9)
    assert [ahead.take(place).place for place in range(2)] == [0, 1]
    with pytest.raises(OSError, match="disk is gone"):
        ahead.take(2)
    ahead.close()


def test_after_an_error_nothing_more_is_loaded_ahead():
    asked = []

    def broken(place: int) -> Thing:
        asked.append(place)
        raise OSError("expired")

    ahead = ReadAhead(iter(range(99)), broken, lambda place: 1, num_bytes=1000, num_places=99)
    with pytest.raises(OSError, match="expired"):
        ahead.take(0)
    ahead.close()
    assert len(asked) <= NUM_THREADS + 1


def test_closing_a_stream_ends_its_threads(tmp_path):
    store = write_store(tmp_path / "s", *random_histories(3000))
    config = DataConfig(store=store, max_history=4, global_batch_size=160, num_data_shards=4)
    batches = SequenceStream(config, seed=0, rank=0, world_size=1).batches()
    next(batches)
    assert list(names_of_readers())
    batches.close()
    assert not list(names_of_readers())


def names_of_readers() -> Iterator[str]:
    return (thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead"))


@pytest.mark.parametrize("longest", [1, 3, 300])
@pytest.mark.parametrize("split", list(Split))
@pytest.mark.parametrize(
    ("row_group_users", "max_history", "long"),
    [(300, 1000, "latest"), (1024, 1000, "latest"), (1024, 5, "latest"), (5000, 2, "windows")],
)
def test_a_window_takes_no_more_than_was_foreseen(tmp_path, longest, row_group_users, max_history, long, split):
    items, times = random_histories(2100, longest=longest)
    items[5], times[5] = [], []
    store = write_store(tmp_path / "s", items, times, row_group_users=row_group_users)
    config = DataConfig(store=store, max_history=max_history, long_histories=LongHistories(long), split=split)
    for segments in ([segment] for segment in segments_of(0, 2100)):
        assert peak_bytes(store, config, segments) <= foreseen_bytes(store, config, segments)
    everything = segments_of(0, 2100)
    assert peak_bytes(store, config, everything) <= foreseen_bytes(store, config, everything)


def train_segments_of(store: str, config: DataConfig) -> TrainSegments:
    manifest = load_manifest(store)
    return TrainSegments(HistoryReader(store, manifest), split_rule(config, manifest), sequence_rule(config))


def foreseen_bytes(store: str, config: DataConfig, segments: list[tuple[int, int]]) -> int:
    return train_segments_of(store, config).bytes_at_most(Window(segments, 0, 1, ()))


def peak_bytes(store: str, config: DataConfig, segments: list[tuple[int, int]]) -> int:
    """The most that a window of ``segments`` took while it was made: NumPy's peak, and what Arrow holds then."""
    train_segments = train_segments_of(store, config)
    arrow_before = pa.total_allocated_bytes()
    tracemalloc.start()
    shuffled = train_segments.shuffled(Window(segments, 0, 1, ()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del shuffled
    return peak + pa.total_allocated_bytes() - arrow_before
