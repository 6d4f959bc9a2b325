"""A real Spark on this machine makes the store that the embedded engine makes: to the last byte."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from logs import FEATURES, SHARED, feature_log, files_of, random_log

from configs.errors import ConfigError, DataError
from configs.load import load_config
from configs.schema import ColumnsConfig, DataConfig
from configs.schema.data import Engine
from configs.schema.features import FeatureConfig, FeatureType, Normalise
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.write.history_writer import USERS_PER_PART
from data_pipeline.store.manifest import Manifest
from data_pipeline.synthetic import write_log

pytestmark = pytest.mark.spark
pyspark_sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: pip install 'shardrec[spark]'")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("there is no Java here: apt-get install openjdk-17-jre-headless", allow_module_level=True)

from data_pipeline.prepare.spark import engine, session  # noqa: E402  (they need pyspark)

WITH_TYPES = {"columns": ColumnsConfig(event_type="event_type")}


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[object]:
    """One session for all: two workers, few tasks, and no time given to compiling what runs for a second."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.codegen.wholeStage": "false",
    }
    builder = pyspark_sql.SparkSession.builder.master("local[2]").config(map=options)
    started = builder.getOrCreate()
    started.sparkContext.setLogLevel("ERROR")
    yield started
    started.stop()


def both(log: Path, folder: Path, **options: object) -> tuple[Manifest, Manifest]:
    """The manifests of the embedded engine's store and of Spark's, made in ``folder``."""
    first = prepare(DataConfig(log=str(log), store=str(folder / "embedded"), **options))  # type: ignore[arg-type]
    config = DataConfig(log=str(log), store=str(folder / "spark"), engine=Engine.SPARK, **options)  # type: ignore[arg-type]
    return first, prepare(config)


def check_same(log: Path, folder: Path, **options: object) -> Manifest:
    """Make both stores and compare all that is in them; returns the manifest of Spark's."""
    embedded, spark = both(log, folder, **options)
    assert spark.engine.startswith("spark-")
    assert asdict(spark) == asdict(embedded) | {"engine": spark.engine}
    stores = [files_of(folder / name) for name in ("embedded", "spark")]
    for store in stores:
        del store["manifest.json"], store["versions/000001/manifest.json"]  # they name the engine
    assert stores[0] == stores[1]
    assert not [path for path in folder.iterdir() if "spark." in path.name], "nothing is left beside the store"
    session_then = pyspark_sql.SparkSession.getActiveSession()
    assert session_then.conf.get("spark.sql.caseSensitive") == "false", "a session that was there is as it was"
    return spark


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not on this machine")
@pytest.mark.parametrize(
    ("log", "source"),
    [
        ("ml100k/log.parquet", "log"),
        ("ml1m/log.parquet", "ml1m"),
        ("beauty/log.parquet", "beauty"),
        ("foursquare_nyc/log.parquet", "log"),
        ("retailrocket_sample/log.parquet", "log"),
        ("taobao_sample/log.parquet", "log"),
        ("taobao_sample/UserBehavior.csv", "taobao"),
        ("otto_sample/train.jsonl", "otto"),
    ],
)
def test_a_real_log(log: str, source: str, tmp_path: Path) -> None:
    config = load_config([f"data={source}"]).data
    options = {"columns": config.columns, "source": config.source, "max_bad_fraction": 1.0}
    made = check_same(SHARED / log, tmp_path, **options)
    assert made.num_events == made.rows_used > 0


def test_text_in_several_files(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    rows = random_log(900)
    rows[:400].write_csv(log / "b.csv")
    rows[400:].write_csv(log / "a.csv")
    (log / "c.csv").write_text("user_id,item_id,timestamp,event_type\n,1,2,view\n7,NULL,3,view\n8,9,x,buy\n")
    made = check_same(log, tmp_path, event_types=["view"], max_bad_fraction=1.0, **WITH_TYPES)
    assert made.rows_quarantined == {"non_integer_timestamp": 1, "null_item": 1, "null_user": 1}
    assert made.num_time_ties > 0
    assert pl.read_parquet(tmp_path / "spark" / "items.parquet")["raw_item"].dtype == pl.Int64


def test_duplicates_the_core_and_files_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROWS_PER_PIECE", 700)
    rows = random_log(3000, kind="string", num_users=300)
    rows = pl.concat([rows, rows[::7].with_columns(event_type=pl.lit(None, pl.String)), rows[::5]])
    (tmp_path / "log").mkdir()
    for k, part in enumerate(rows.iter_slices(2000)):
        part.write_parquet(tmp_path / "log" / f"{k}.parquet", row_group_size=250)
    options = {"deduplicate": True, "min_user_events": 6, "min_item_events": 90}
    filtered = check_same(tmp_path / "log", tmp_path, **options, **WITH_TYPES).rows_filtered
    assert filtered["duplicate"] > 0
    assert filtered["min_events"] > 0


def test_a_dirty_log_in_which_much_is_put_aside(tmp_path: Path) -> None:
    write_log(SyntheticConfig(num_users=400, num_items=80, dirty_fraction=0.1), str(tmp_path / "log.parquet"))
    made = check_same(tmp_path / "log.parquet", tmp_path, max_bad_fraction=0.5)
    assert len(made.rows_quarantined) >= 4


def test_more_users_than_a_part_holds(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    num_users = USERS_PER_PART + 5000
    users = np.concatenate([draw.permutation(num_users), draw.integers(0, num_users, 50_000)]) * 3 - 10**6
    rows = {
        "user_id": users,
        "item_id": draw.integers(0, 99, len(users)),
        "timestamp": draw.integers(0, 9, len(users)),
        "price": draw.standard_normal(len(users)),
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    check_same(tmp_path / "log.parquet", tmp_path, features={"price": FeatureConfig(type=FeatureType.NUMBER)})
    assert len(list((tmp_path / "spark" / "histories").iterdir())) == 2


def test_features_without_duplicates_and_of_the_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROWS_PER_PIECE", 400)
    log = tmp_path / "log"
    log.mkdir()
    rows = feature_log(3000)
    rows[:1000].with_columns(price=None, stars=pl.col("stars").cast(pl.Int8)).write_parquet(log / "a.parquet")
    rows[1000:].write_parquet(log / "b.parquet", row_group_size=250)
    options = {"deduplicate": True, "min_user_events": 40, "min_item_events": 95}
    made = check_same(log, tmp_path, features=FEATURES, **options)
    assert made.rows_filtered["duplicate"] > 0
    assert made.rows_filtered["min_events"] > 0
    assert all(feature.num_missing > 1 for feature in made.features.values())


def test_values_that_are_put_aside_and_a_vocabulary_cut_where_counts_are_equal(tmp_path: Path) -> None:
    words = ["z", "\N{FULLWIDTH TILDE}", "\N{GRINNING FACE}", "é", "Z", "", "x" * 1025, "NULL"]
    prices = ["1e16", " 1 ", "-1e16", "NaN", "cheap", "1e38", "0.1", ""]
    rows = {"user_id": range(64), "item_id": [1] * 64, "timestamp": range(64), "word": words * 8}
    log = pl.DataFrame(rows | {"price": np.repeat(prices, 8).tolist()})
    log.write_csv(tmp_path / "log.csv")
    features = {
        "word": FeatureConfig(max_values=3),
        "Word": FeatureConfig(column="word", max_values=4, fill="é"),
        "price": FeatureConfig(type=FeatureType.NUMBER, normalise=Normalise.STANDARD),
    }
    made = check_same(tmp_path / "log.csv", tmp_path, features=features, max_bad_fraction=1.0)
    assert made.rows_quarantined == {"price_not_a_number": 7, "price_out_of_range": 7, "word_too_long": 8}
    assert made.features["word"].vocabulary == ["Z", "z", "é"]
    assert made.features["Word"].vocabulary == ["é", "Z", "z", "\N{FULLWIDTH TILDE}"]


def test_a_damaged_file_is_named_as_the_embedded_engine_names_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    for name in "abc":
        random_log(500).write_parquet(log / f"{name}.parquet", compression="uncompressed")
    whole = (log / "b.parquet").read_bytes()
    (log / "b.parquet").write_bytes(b"PAR1" + b"\xff" * 200 + whole[204:])
    messages = []
    for chosen in Engine:
        with pytest.raises(DataError) as told:
            prepare(DataConfig(log=str(log), store=str(tmp_path / "store"), engine=chosen))
        messages.append(str(told.value))
    assert "b.parquet cannot be read" in messages[0]
    assert messages[0] == messages[1]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_no_java_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with (
        pytest.raises(ConfigError, match=r"Java 17 or newer.*openjdk"),
        session.session_of(DataConfig(engine=Engine.SPARK)),
    ):
        pass
