"""The ready-made sources read what their publishers write: small files of that form, and real pieces of them."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from configs.choices import CONFIG_DIR
from configs.load import load_config
from data_pipeline.prepare.__main__ import main
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import Manifest

SHARED = Path(__file__).parents[3] / "shared" / "data"
OURS = {"ml1m", "beauty", "log", "synthetic"}
"""Groups for logs of our own form."""

MOVIELENS_1M = "1::1193::5::978300760\n1::661::3::978302109\n2::1357::5::978298709\n"
MOVIELENS_20M = "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n2,3,4.0,974820889\n"
AMAZON_2014 = (
    '{"reviewerID": "A1YJEY40YUW4SE", "asin": "7806397051", "reviewerName": "Andrea", "helpful": [3, 4], '
    '"reviewText": "Very oily and creamy. \\"No\\".", "overall": 1.0, "summary": "x", "unixReviewTime": 1391040000, '
    '"reviewTime": "01 30, 2014"}\n'
)
AMAZON_2018 = (
    '{"overall": 5.0, "verified": true, "reviewTime": "09 1, 2016", "reviewerID": "A3CIUOJXQ5VDQ2", "asin": '
    '"B0000530HU", "style": {"Size:": " 7.0 oz"}, "reviewText": "As", "unixReviewTime": 1472688000}\n'
)
AMAZON_2023 = (
    '{"rating": 5.0, "title": "Such", "text": "a", "images": [], "asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EP", '
    '"user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0}\n'
)
RETAILROCKET = (
    "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
    "1433224214164,992329,transaction,248676,4000\n"
)
OTTO = (
    '{"session": 42, "events": [{"aid": 0, "ts": 1661200010000, "type": "clicks"}, '
    '{"aid": 1, "ts": 1661200020000, "type": "carts"}]}\n{"session": 43, "events": '
    '[{"aid": 1, "ts": 1661119200000, "type": "clicks"}]}\n'
)
KUAIRAND = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
    "0,3789,20220421,700,1650494835711,1,0,0,0,0,0,1,13800,13000,0,0,0,0,1\n"
    "0,1320,20220421,700,1650494910500,0,0,0,0,0,0,0,0,35933,0,0,0,0,1\n"
)

Histories = dict[object, list[tuple[object, int]]]
PUBLISHED: dict[str, tuple[str, str | bytes, Histories]] = {
    "movielens_100k": ("u.data", "196\t242\t3\t881250949\n", {196: [(242, 881250949000)]}),
    "movielens_1m": (
        "ratings.dat",
        MOVIELENS_1M,
        {1: [(1193, 978300760000), (661, 978302109000)], 2: [(1357, 978298709000)]},
    ),
    "movielens_20m": (
        "ratings.csv",
        MOVIELENS_20M,
        {1: [(29, 1112484676000), (2, 1112486027000)], 2: [(3, 974820889000)]},
    ),
    "amazon_2014_ratings": (
        "ratings_Beauty.csv",
        "A39HTATAQ9V7YF,0205616461,5.0,1369699200\n",
        {"A39HTATAQ9V7YF": [("0205616461", 1369699200000)]},
    ),
    "amazon_2018_ratings": (
        "All_Beauty.csv",
        "0143026860,A1V6B6TNIC10QE,1.0,1424304000\n",
        {"A1V6B6TNIC10QE": [("0143026860", 1424304000000)]},
    ),
    "amazon_2014": (
        "reviews_Beauty_5.json.gz",
        gzip.compress((AMAZON_2014 + AMAZON_2018).encode()),
        {"A1YJEY40YUW4SE": [("7806397051", 1391040000000)], "A3CIUOJXQ5VDQ2": [("B0000530HU", 1472688000000)]},
    ),
    "amazon_2023": (
        "All_Beauty.jsonl",
        AMAZON_2023,
        {"AGKHLEW2SOWHNMFQIJGBECAF7INQ": [("B00YQ6X8EP", 1588687728923)]},
    ),
    "taobao": (
        "UserBehavior.csv",
        "1,2268318,2520377,pv,1511561733\n1,2333346,2520771,buy,1511571733\n1,5,6,pv,-2134949234\n",
        {1: [(2268318, 1511561733000), (2333346, 1511571733000)]},
    ),
    "retailrocket": (
        "events.csv",
        RETAILROCKET,
        {257597: [(355908, 1433221332117)], 992329: [(248676, 1433224214164)]},
    ),
    "otto": (
        "train.jsonl",
        OTTO,
        {42: [(0, 1661200010000), (1, 1661200020000)], 43: [(1, 1661119200000)]},
    ),
    "kuairand": ("log_standard_4_08_to_4_21_pure.csv", KUAIRAND, {0: [(3789, 1650494835711)]}),
}


def prepared(source: str, log: Path, store: Path, *keys: str) -> Manifest:
    return prepare(load_config([f"data={source}", f"data.log={log}", f"data.store={store}", *keys]).data)


def histories_in(store: Path) -> Histories:
    raw = pl.read_parquet(store / "items.parquet")["raw_item"]
    table = pl.read_parquet(store / "histories" / "*.parquet").select("raw_user", "item", "timestamp")
    return {user: [(raw[i], t) for i, t in zip(items, times, strict=True)] for user, items, times in table.rows()}


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_source_reads_what_its_publisher_writes(source: str, tmp_path: Path) -> None:
    name, data, expected = PUBLISHED[source]
    log = tmp_path / name
    log.write_bytes(data if isinstance(data, bytes) else data.encode())
    prepared(source, log, tmp_path / "store", "data.max_bad_fraction=0.5")
    assert histories_in(tmp_path / "store") == expected


def test_yambda_is_read_with_and_without_its_event_types(tmp_path: Path) -> None:
    types = {"uid": pl.UInt32, "item_id": pl.UInt32, "timestamp": pl.UInt32, "is_organic": pl.UInt8}
    rows = [(100, 7, 25, 1, "listen"), (100, 8, 20, 0, "like"), (200, 7, 0, 1, "listen")]
    table = pl.DataFrame(rows, schema={**types, "event_type": pl.Categorical}, orient="row")
    table.drop("event_type").write_parquet(tmp_path / "listens.parquet")
    table.write_parquet(tmp_path / "multi_event.parquet")
    prepared("yambda", tmp_path / "listens.parquet", tmp_path / "all")
    assert histories_in(tmp_path / "all") == {100: [(8, 20_000), (7, 25_000)], 200: [(7, 0)]}
    keys = ["data.columns.event_type=event_type", "data.event_types=[listen]"]
    prepared("yambda", tmp_path / "multi_event.parquet", tmp_path / "listens", *keys)
    assert histories_in(tmp_path / "listens") == {100: [(7, 25_000)], 200: [(7, 0)]}


def test_amazon_2023_is_also_read_as_csv(tmp_path: Path) -> None:
    log = tmp_path / "All_Beauty.csv.gz"
    log.write_bytes(gzip.compress(b"user_id,parent_asin,rating,timestamp\nAE,B07J3GH1W1,5.0,1547589356557\n"))
    prepared("amazon_2023", log, tmp_path / "store")
    assert histories_in(tmp_path / "store") == {"AE": [("B07J3GH1W1", 1547589356557)]}


@pytest.mark.parametrize("types", [["buy"], ["pv", "buy"]])
def test_event_types_are_chosen_by_the_words_of_the_source(types: list[str], tmp_path: Path) -> None:
    log = tmp_path / "UserBehavior.csv"
    log.write_text(str(PUBLISHED["taobao"][1]))
    keys = ["data.max_bad_fraction=0.5", f"data.event_types=[{','.join(types)}]"]
    manifest = prepared("taobao", log, tmp_path / "store", *keys)
    assert manifest.rows_used == len(types)
    assert manifest.rows_filtered == {"event_type": 2 - len(types)}
    assert manifest.rows_quarantined == {"negative_timestamp": 1}


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_times_of_seconds_read_as_milliseconds_are_noted(
    unit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n1,2,1600000000\n")
    assert (
        main([f"data.log={tmp_path}/log.csv", f"data.store={tmp_path}/store", f"data.source.time_unit={unit}"]) == 0
    )
    assert ("set data.source.time_unit=s" in capsys.readouterr().out) == (unit == "ms")


def test_every_source_has_a_test_and_a_page() -> None:
    names = {path.stem for path in (CONFIG_DIR / "data").glob("*.yaml")} - OURS
    assert names == {*PUBLISHED, "yambda"}
    text = (CONFIG_DIR.parent / "docs" / "sources.md").read_text(encoding="utf-8")
    assert not [name for name in names if f"data={name} " not in text]


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"{path} is not on this machine")


@needs(SHARED / "taobao_sample")
def test_the_raw_file_of_taobao_is_read_and_its_cut_line_is_quarantined(tmp_path: Path) -> None:
    raw = SHARED / "taobao_sample" / "UserBehavior.csv"
    manifest = prepared("taobao", raw, tmp_path / "store")
    lines = [line.split(",") for line in raw.read_text().splitlines()]
    first, last = (datetime(2017, 11, 24, 16, tzinfo=UTC), datetime(2017, 12, 3, 16, tzinfo=UTC))
    sound = [f for f in lines if len(f) == 5 and first.timestamp() <= int(f[4]) < last.timestamp()]
    assert manifest.rows_used == len(sound) > 90_000
    assert manifest.rows_read == len(lines)
    assert manifest.num_users == len({fields[0] for fields in sound})
    assert manifest.num_items == len({fields[1] for fields in sound})


@needs(SHARED / "otto_sample")
def test_the_real_sessions_of_otto_are_read(tmp_path: Path) -> None:
    manifest = prepared("otto", SHARED / "otto_sample" / "train.jsonl", tmp_path / "store")
    assert (manifest.num_users, manifest.num_items, manifest.num_events) == (20, 510, 862)
    assert manifest.rows_quarantined == {}


@needs(SHARED / "ml100k")
@pytest.mark.parametrize(
    ("source", "name", "separator"),
    [
        ("movielens_100k", "u.data", "\t"),
        ("movielens_1m", "ratings.dat", "::"),
        ("movielens_20m", "ratings.csv", ","),
    ],
)
def test_movielens_in_its_published_form_has_the_fingerprint_of_its_parquet(
    source: str, name: str, separator: str, tmp_path: Path
) -> None:
    rows = pl.read_parquet(SHARED / "ml100k" / "log.parquet").with_columns(pl.col("timestamp") // 1000 * 1000)
    rows.write_parquet(tmp_path / "log.parquet")
    fields = ["user_id", "item_id", "rating", pl.col("timestamp") // 1000]
    lines = rows.select(pl.concat_str(fields, separator=separator)).to_series().to_list()
    header = ["userId,movieId,rating,timestamp"] if name.endswith(".csv") else []
    (tmp_path / name).write_text("\n".join([*header, *lines]) + "\n")
    expected = prepared("log", tmp_path / "log.parquet", tmp_path / "expected").fingerprint
    assert prepared(source, tmp_path / name, tmp_path / "store").fingerprint == expected


@needs(SHARED / "retailrocket_sample")
def test_the_events_of_retailrocket_have_the_fingerprint_of_their_parquet(tmp_path: Path) -> None:
    rows = pl.read_parquet(SHARED / "retailrocket_sample" / "log.parquet")
    names = {"timestamp": "timestamp", "user_id": "visitorid", "event_type": "event", "item_id": "itemid"}
    raw = rows.select(pl.col(ours).alias(theirs) for ours, theirs in names.items())
    raw.with_columns(transactionid=pl.lit("")).write_csv(tmp_path / "events.csv")
    rows.write_parquet(tmp_path / "log.parquet")
    expected = prepared("log", tmp_path / "log.parquet", tmp_path / "expected")
    manifest = prepared("retailrocket", tmp_path / "events.csv", tmp_path / "store")
    assert (manifest.fingerprint, manifest.num_events) == (expected.fingerprint, 9385)
