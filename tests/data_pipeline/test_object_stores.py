"""Stores and logs behind ``s3://``: the batches of the local copy, or one clear error; never a wrong batch."""

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, LongHistories
from data_pipeline.inspect.__main__ import main as inspect
from data_pipeline.split import Subset, split_rule
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import load_manifest
from data_pipeline.store.paths import ObjectPath, files_in, path_of
from data_pipeline.stream.read_ahead import NUM_THREADS
from data_pipeline.stream.sequence_stream import SequenceStream, evaluation_batches
from data_pipeline.stream.training_lengths import training_lengths
from object_store import BUCKET, FaultyProxy, connect
from prepared_store import synthetic_store
from stores import random_histories, write_store

STORE = f"s3://{BUCKET}/stores/tiny"
WEIGHED: list[dict[str, Any]] = [{"global_batch_tokens": 200}, {"long_histories": LongHistories.WINDOWS}]


def sent(folder: str | Path, url: str) -> str:
    """Copy all files of a local folder to ``url``; the URL."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            ObjectPath(f"{url}/{path.relative_to(folder)}").send(path)
    return url


@pytest.fixture
def local(tmp_path: Path) -> str:
    items, times = random_histories(300, seed=3)
    return write_store(tmp_path / "store", items, times, row_group_users=50, part_users=100)


def train_batches(store: str, num: int = 12) -> list[tuple[torch.Tensor, ...]]:
    config = DataConfig(store=store, global_batch_size=32, num_data_shards=4, shuffle_window_users=2048)
    batches = SequenceStream(config, seed=1, rank=0, world_size=2).batches()
    return [(batch.item, batch.lengths, batch.user, batch.timestamp) for batch in islice(batches, num)]


def weighed_batches(store: str, mode: dict[str, Any], num: int = 12) -> list[tuple[torch.Tensor, ...]]:
    """Batches whose steps are cut by the lengths of all histories."""
    config = DataConfig(
        store=store, num_data_shards=4, max_history=5, shuffle_window_users=2048, global_batch_size=32, **mode
    )
    batches = SequenceStream(config, seed=1, rank=1, world_size=2).batches()
    return [(batch.item, batch.lengths, batch.user, batch.timestamp) for batch in islice(batches, num)]


def ranked_batches(store: str) -> list[tuple[torch.Tensor, ...]]:
    batches = evaluation_batches(DataConfig(store=store), Subset.TEST, batch_size=64, rank=1, world_size=2)
    return [(batch.history.item, batch.history.user, batch.target, batch.seen) for batch in batches]


def assert_equal(found: list[tuple[torch.Tensor, ...]], expected: list[tuple[torch.Tensor, ...]]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_of_a_store_behind_a_url_equal_those_of_the_local_copy(proxy: FaultyProxy, local: str) -> None:
    url = sent(local, STORE)
    assert load_manifest(url) == load_manifest(local)
    assert_equal(train_batches(url), train_batches(local))
    assert_equal(ranked_batches(url), ranked_batches(local))


def test_a_store_behind_a_url_is_inspected_without_a_picture_beside_it(
    proxy: FaultyProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = synthetic_store(tmp_path)
    assert inspect([sent(store, f"s3://{BUCKET}/stores/inspected")]) == 0
    there = capsys.readouterr().out
    assert inspect([store, "png="]) == 0
    assert there.splitlines()[1:] == capsys.readouterr().out.splitlines()[1:]


@pytest.mark.parametrize("mode", WEIGHED)
@pytest.mark.parametrize("scheme", ["file", "s3"])
def test_batches_that_are_cut_by_lengths_equal_those_of_the_local_store_and_the_second_start_reads_the_lengths(
    proxy: FaultyProxy,
    local: str,
    tmp_path: Path,
    scheme: str,
    mode: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = weighed_batches(local, mode)
    shutil.rmtree(Path(local, "lengths"))
    url = f"file://{local}" if scheme == "file" else sent(local, f"s3://{BUCKET}/weighed/{next(iter(mode))}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_equal(weighed_batches(url, mode), expected)
    assert len(files_in(path_of(url) / "lengths", "000001-leave_one_out-*")) == 1
    monkeypatch.delattr("data_pipeline.store.history_reader.HistoryReader.times")
    assert_equal(weighed_batches(url, mode), expected)
    assert not any(Path().iterdir()), "the URL is not taken for a path of the working folder"


def test_a_bucket_that_lengths_may_not_be_put_into_is_scanned_with_a_warning_that_names_it_and_the_cost(
    proxy: FaultyProxy, local: str
) -> None:
    url, expected = sent(local, f"s3://{BUCKET}/read-only"), weighed_batches(local, WEIGHED[0])
    proxy.fault = lambda method, path: "expired" if method in ("PUT", "POST") else ""
    num_events = load_manifest(local).num_events
    for _ in range(2):
        told = f"{url}/lengths/.*cannot be written.*every rank reads the timestamps of all {num_events:,} events"
        with pytest.warns(UserWarning, match=told):
            assert_equal(weighed_batches(url, WEIGHED[0]), expected)


def test_lengths_in_a_bucket_that_are_damaged_or_of_another_store_are_made_again(
    proxy: FaultyProxy, local: str
) -> None:
    expected = weighed_batches(local, WEIGHED[0])
    url = sent(local, f"s3://{BUCKET}/wrong-lengths")
    (place,) = files_in(path_of(url) / "lengths", "*")
    content = place.read_bytes()
    for wrong in (b"", content[:50], content[:-4], content[4:]):
        place.write_bytes(wrong)
        with pytest.warns(UserWarning, match=f"{place} is damaged; it is made again"):
            assert_equal(weighed_batches(url, WEIGHED[0]), expected)
        assert place.read_bytes() == content


def test_lengths_are_not_put_where_a_file_is_seen_while_it_grows(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectPath, "is_file", lambda self: False)
    manifest, config = load_manifest(local), DataConfig(store=local)
    reader, rule = HistoryReader(local, manifest), split_rule(config, manifest)
    with pytest.warns(UserWarning, match=r"hdfs://host/store/lengths/.*HDFS.*scanned at each start"):
        found = training_lengths("hdfs://host/store", manifest, rule, reader)
    np.testing.assert_array_equal(found, training_lengths(local, manifest, rule, reader))


@pytest.mark.parametrize(
    "faults", [("500", "503"), ("cut",), ("short",), ("slow",), ("short", "500", "cut", "short", "slow")]
)
def test_answers_that_fail_in_passing_change_no_batch(
    proxy: FaultyProxy, local: str, faults: tuple[str, ...]
) -> None:
    url = sent(local, STORE)
    expected = train_batches(local)
    proxy.every(3, *faults)
    assert_equal(train_batches(url), expected)
    assert set(proxy.done) == set(faults), "every fault was met"


@pytest.mark.parametrize("fault", ["500", "cut", "short"])
def test_a_store_that_fails_to_the_end_is_one_clear_error(proxy: FaultyProxy, local: str, fault: str) -> None:
    url = sent(local, STORE)
    proxy.every(1, fault, only="part-00001")
    with pytest.raises(DataError, match=f"{url}/histories/part-00001.parquet.*tries.*AWS_ENDPOINT_URL"):
        train_batches(url)


def test_credentials_that_expire_while_batches_are_read_end_at_once_and_say_what_to_renew(
    proxy: FaultyProxy, local: str
) -> None:
    url = sent(local, STORE)
    config = DataConfig(store=url, global_batch_size=32, num_data_shards=4, prefetch_batches=0)
    batches = SequenceStream(config, seed=1, rank=0, world_size=1).batches()
    proxy.every(1, "expired")
    with pytest.raises(DataError, match=r"part-0000.*credentials.*expired.*AWS_SESSION_TOKEN"):
        list(islice(batches, 12))
    assert proxy.done["expired"] <= NUM_THREADS + 1, "each reader asks once"


def test_a_place_without_a_store_and_a_bucket_that_is_not_there_are_told_apart(proxy: FaultyProxy) -> None:
    with pytest.raises(DataError, match=rf"s3://{BUCKET}/none/manifest.json does not exist.*shardrec prepare"):
        load_manifest(f"s3://{BUCKET}/none")
    with pytest.raises(DataError, match="no such bucket"):
        ObjectPath("s3://no-such-bucket/store/manifest.json").write_bytes(b"{}")


def test_an_endpoint_that_does_not_listen_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, 9)
    with pytest.raises(DataError, match=rf"{STORE}/manifest.json: 5 tries.*AWS_ENDPOINT_URL"):
        load_manifest(STORE)


def test_bytes_that_are_damaged_on_their_way_are_asked_for_again_and_damaged_ones_at_rest_are_an_error(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    store = synthetic_store(tmp_path)
    url, manifest = sent(store, f"s3://{BUCKET}/stores/damaged"), load_manifest(store)
    expected, reader = HistoryReader(store, manifest).read(0, 150), HistoryReader(url, manifest)
    seen = []
    proxy.fault = lambda method, path: "flip" if not seen and not seen.append(path) else ""
    found = reader.read(0, 150)
    assert seen, "a byte was damaged"
    assert found.item.tolist() == expected.item.tolist()
    assert found.timestamp.tolist() == expected.timestamp.tolist()
    fresh = HistoryReader(url, manifest)
    proxy.every(1, "flip")
    with pytest.raises(DataError, match=r"part-00000.parquet, row group 0: cannot be read"):
        fresh.read(0, 150)


@pytest.mark.parametrize("last", [0x00, 0xA5, 0x5A, 0xFF])
def test_a_short_answer_is_told_from_data_that_ends_like_the_mark(proxy: FaultyProxy, last: int) -> None:
    place, content = ObjectPath(f"s3://{BUCKET}/marks/{last}"), bytes([*range(200), last])
    place.write_bytes(content)
    assert place.read_bytes() == content
    proxy.every(2, "short")
    assert place.read_bytes() == content
    proxy.every(1, "short")
    with pytest.raises(DataError, match="not all of bytes"):
        place.read_bytes()


def test_only_the_bytes_of_the_data_shards_of_a_rank_are_read(
    proxy: FaultyProxy, local: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range whose last byte happens to be the mark is asked for twice; of three marks one is in neither of two."""
    url = sent(local, STORE)
    asked: list[tuple[str, str]] = []

    def note(method: str, path: str) -> str:
        asked.append((method, path.rsplit("/", 1)[-1]))
        return ""

    def requests_of_an_epoch(mark: int) -> int:
        monkeypatch.setattr("data_pipeline.store.paths.secrets.randbelow", lambda _: mark)
        stream = SequenceStream(config, seed=1, rank=0, world_size=3)
        asked.clear()
        list(islice(stream.batches(), stream.steps_per_epoch))
        assert set(asked) == {("GET", "part-00000.parquet")}
        return len(asked)

    proxy.fault = note
    config = DataConfig(store=url, global_batch_size=30, num_data_shards=3, prefetch_batches=0)
    assert min(map(requests_of_an_epoch, range(3))) == 2, "one request a row group, not one a column"


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_an_object_is_removed_whichever_request_of_it_fails(proxy: FaultyProxy, failing: int) -> None:
    """A removal is several requests: what is asked again after the one that counts finds nothing there."""
    place = ObjectPath(f"s3://{BUCKET}/removed-{failing}/folder/object")
    place.write_bytes(b"here")
    seen: list[str] = []

    def fault(method: str, path: str) -> str:
        seen.append(method)
        return "500" if len(seen) == failing else ""

    proxy.fault = fault
    place.unlink()
    proxy.fault = lambda method, path: ""
    assert not place.is_file()
    with pytest.raises(FileNotFoundError):
        place.unlink()


def test_a_file_url_is_the_local_path_and_other_schemes_are_refused(local: str) -> None:
    assert load_manifest(f"file://{local}") == load_manifest(local)
    assert path_of(f"file://{local}") == Path(local)
    with pytest.raises(ConfigError, match=r"ftp://.*s3://"):
        load_manifest("ftp://host/store")
