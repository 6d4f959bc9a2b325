"""The made log is clean where it must be, repeatable, and its oracle is a bound that the true model reaches."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from configs.errors import ConfigError
from configs.schema import DataConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline import synthetic
from data_pipeline.prepare.__main__ import make_synthetic_log
from data_pipeline.prepare.prepare import prepare

CONFIG = SyntheticConfig(num_users=800, num_items=300, mean_length=20, seed=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.write_log(CONFIG, str(folder / "log.parquet"))
    prepare(DataConfig(log=str(folder / "log.parquet"), store=str(folder / "store")))
    return str(folder / "store")


def histories(store: str) -> list[list[int]]:
    return pq.read_table(f"{store}/histories")["item"].to_pylist()


def test_log_has_the_asked_size_and_types(tmp_path: Path) -> None:
    synthetic.write_log(CONFIG, str(tmp_path / "log.parquet"))
    table = pq.read_table(tmp_path / "log.parquet")
    assert [str(field.type) for field in table.schema] == ["int64"] * 3
    assert table.schema.names == ["user_id", "item_id", "timestamp"]
    assert len(pc.unique(table["user_id"])) == CONFIG.num_users
    assert table.num_rows / CONFIG.num_users == pytest.approx(CONFIG.mean_length, rel=0.1)
    assert sum(column.null_count for column in table.columns) == 0


def test_no_user_has_an_item_twice(store: str) -> None:
    assert all(len(set(history)) == len(history) for history in histories(store))


def test_same_seed_same_bytes_and_another_seed_another_log(tmp_path: Path) -> None:
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        config = SyntheticConfig(num_users=50, num_items=60, seed=seed, dirty_fraction=0.1)
        synthetic.write_log(config, str(tmp_path / name))
    a, b, c = (Path(tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_small_catalogue_is_never_exhausted(tmp_path: Path) -> None:
    config = SyntheticConfig(num_users=200, num_items=41, mean_length=40)
    synthetic.write_log(config, str(tmp_path / "log.parquet"))
    prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "store")))
    assert max(map(len, histories(str(tmp_path / "store")))) == 20


def test_equal_times_are_in_the_order_in_which_events_happened(tmp_path: Path) -> None:
    """Users with day resolution follow the successor rule as often as the others: the order was not lost."""
    config = SyntheticConfig(num_users=2000, num_items=300, transition_probability=0.9)
    synthetic.write_log(config, str(tmp_path / "log.parquet"))
    table = pq.read_table(tmp_path / "log.parquet")
    user, item, time = (table[name].to_numpy() for name in table.schema.names)
    order = np.argsort(user, kind="stable")
    user, item, time = user[order], item[order], time[order]
    world = synthetic.world_of(config)
    latent = np.empty(config.num_items, np.int64)
    latent[world.raw_item - synthetic.RAW_ITEM_OFFSET] = np.arange(config.num_items)
    cluster = latent[item - synthetic.RAW_ITEM_OFFSET] % world.num_clusters
    follows = world.successor(cluster[:-2], cluster[1:-1]) == cluster[2:]
    tied = (user[:-2] == user[2:]) & (time[:-2] == time[2:]) & (time[2:] % synthetic.DAY_MS == 0)
    assert tied.sum() > 500
    assert follows[tied].mean() > 0.75


def test_dirty_rows_come_on_top_and_of_every_kind(tmp_path: Path) -> None:
    clean = SyntheticConfig(num_users=100, num_items=60)
    dirty = SyntheticConfig(num_users=100, num_items=60, dirty_fraction=0.2)
    synthetic.write_log(clean, str(tmp_path / "clean.parquet"))
    synthetic.write_log(dirty, str(tmp_path / "dirty.parquet"))
    table = pq.read_table(tmp_path / "dirty.parquet")
    assert all(column.null_count > 0 for column in table.columns)
    assert pc.min(table["timestamp"]).as_py() < 0
    kept = table.drop_null().filter(pc.field("timestamp") >= 0)
    assert kept.to_pydict() == pq.read_table(tmp_path / "clean.parquet").to_pydict()
    assert 1 - kept.num_rows / table.num_rows == pytest.approx(0.2, abs=0.01)


def test_dirty_rows_are_quarantined_and_change_nothing(tmp_path: Path) -> None:
    manifests = []
    for name, fraction in [("clean", 0.0), ("dirty", 0.05)]:
        config = SyntheticConfig(num_users=100, num_items=60, dirty_fraction=fraction)
        log = str(tmp_path / f"{name}.parquet")
        synthetic.write_log(config, log)
        manifests.append(prepare(DataConfig(log=log, store=str(tmp_path / name), max_bad_fraction=0.1)))
    clean, dirty = manifests
    assert dirty.fingerprint == clean.fingerprint
    assert sum(count > 0 for count in dirty.rows_quarantined.values()) == 4
    assert sum(clean.rows_quarantined.values()) == 0


def test_memory_grows_with_the_items_and_not_with_their_pairs() -> None:
    def num_bytes(num_items: int) -> int:
        world = synthetic.world_of(SyntheticConfig(num_users=1, num_items=num_items))
        return sum(value.nbytes for name in world.__slots__ if isinstance(value := getattr(world, name), np.ndarray))

    assert num_bytes(200_000) < 11 * num_bytes(20_000)


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.synthetic\.num_users=0"):
        synthetic.write_log(SyntheticConfig(num_items=10), str(tmp_path / "log"))


def test_other_choices_write_the_log_anew_and_somebodys_own_log_stays(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    config = DataConfig(log=str(path), synthetic=SyntheticConfig(num_users=20, num_items=40, mean_length=5))
    make_synthetic_log(config)
    first = path.read_bytes()
    make_synthetic_log(config)
    assert path.read_bytes() == first
    config.synthetic.seed = 1
    make_synthetic_log(config)
    assert path.read_bytes() != first
    (tmp_path / "log.parquet.synthetic.json").unlink()
    path.write_bytes(b"mine")
    make_synthetic_log(config)
    assert path.read_bytes() == b"mine"
