"""What `recommend` writes: the lists that an evaluation ranks, one file whatever the ranks and the kills."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.errors import ConfigError
from data_pipeline.split import Subset
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.lease import Lease
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from prepared_store import synthetic_store
from ranks import run_ranks
from runs import run_here, tiny_run
from train.evaluation.preflight import evaluated_run
from train.recommend import run as recommend_run
from train.recommend.run import recommend
from train.recommend.unfinished import Unfinished


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 users and 80 items."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_here(tiny_run(synthetic_store(folder), folder / "run", 4)) == 0
    return folder / "run"


def recommend_here(overrides: list[str]) -> None:
    """On the process group that is there, or alone. Collective."""
    recommend(evaluated_run(overrides))


def rows_of(run_dir: Path, output: Path, *overrides: str) -> pl.DataFrame:
    recommend_here([f"run_dir={run_dir}", f"recommend.output={output}", *overrides])
    readers = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}
    return readers[output.suffix](output)


def lists_in(rows: pl.DataFrame) -> dict[int, list[int]]:
    """Items by user, in order."""
    names = rows.columns
    return {int(key[0]): part[names[2]].to_list() for key, part in rows.group_by(names[0], maintain_order=True)}


def log_of(run_dir: Path) -> pl.DataFrame:
    return pl.read_parquet(run_dir.parent / "log.parquet")


def test_the_share_of_held_out_items_among_the_rows_is_the_hit_rate(run_dir: Path, tmp_path: Path):
    config = evaluated_run([f"run_dir={run_dir}"])
    rows = rows_of(run_dir, tmp_path / "rows.parquet", "recommend.history=before_test")
    raw_item = pl.read_parquet(Path(config.data.store) / "items.parquet")["raw_item"].to_list()
    raw_user = pl.read_parquet(Path(config.data.store) / "histories" / "*.parquet")["raw_user"].to_list()
    lists, hits, num_users = lists_in(rows), 0, 0
    for batch in evaluation_batches(config.data, Subset.TEST, batch_size=64, rank=0, world_size=1, features=()):
        for user, target in zip(batch.history.user.tolist(), batch.target.tolist(), strict=True):
            hits += raw_item[target] in lists[raw_user[user]]
            num_users += 1
    quality = json.loads((run_dir / "summary.json").read_text())["quality"]
    assert quality["num_test_users"] == num_users
    assert hits / num_users == quality["test"]["hr@10"]
    assert len(rows) == 10 * len(lists) == 10 * 150


@pytest.mark.parametrize(
    "suffix", [".parquet", *(pytest.param(name, marks=pytest.mark.slow) for name in (".csv", ".jsonl"))]
)
def test_any_number_of_ranks_and_threads_writes_the_same_file(run_dir: Path, tmp_path: Path, suffix: str):
    overrides = [f"run_dir={run_dir}", "recommend.batch_size=16"]
    contents = []
    for num_ranks, num_threads in ((1, 2), (2, 1), (4, 1)) if suffix == ".parquet" else ((1, 1), (2, 2)):
        output = tmp_path / f"rows-{num_ranks}{suffix}"
        more = [f"recommend.output={output}", f"hardware.num_threads={num_threads}"]
        run_ranks(num_ranks, recommend_here, [*overrides, *more])
        contents.append(output.read_bytes())
    assert len(contents[0]) > 1000
    assert all(content == contents[0] for content in contents)
    assert not list(tmp_path.glob("*.unfinished"))


class Killed(BaseException):
    """What ends the command wherever it is."""


@pytest.mark.parametrize("after", [1, *(pytest.param(after, marks=pytest.mark.slow) for after in (0, 3, 5))])
@pytest.mark.parametrize("suffix", [".parquet", pytest.param(".csv", marks=pytest.mark.slow)])
def test_a_killed_command_goes_on_and_writes_the_same_file(
    run_dir: Path, tmp_path: Path, suffix: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommend_run, "ROWS_PER_PART", 320)
    options = ["recommend.batch_size=16"]
    whole = tmp_path / f"whole{suffix}"
    rows_of(run_dir, whole, *options)
    written = list[int]()
    real = Unfinished.write

    def killing(self: Unfinished, rows: pl.DataFrame) -> None:
        if len(written) == after:
            raise Killed
        written.append(len(rows))
        real(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Unfinished, "write", killing)
        if after < 5:
            with pytest.raises(Killed):
                rows_of(run_dir, tmp_path / f"cut{suffix}", *options)
        else:
            patched.setattr(Unfinished, "_remove_ours", _raise)  # it is killed when the output has its name
            with pytest.raises(Killed):
                rows_of(run_dir, tmp_path / f"cut{suffix}", *options)
    assert (tmp_path / f"cut{suffix}").exists() == (after == 5)
    again = list[int]()
    monkeypatch.setattr(Unfinished, "write", lambda self, rows: (again.append(len(rows)), real(self, rows))[1])
    rows_of(run_dir, tmp_path / f"cut{suffix}", *options)
    assert (tmp_path / f"cut{suffix}").read_bytes() == whole.read_bytes()
    assert len(written) + len(again) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"whole{suffix}", f"cut{suffix}"])


def _raise(self: Unfinished) -> None:
    if getattr(self, "num_parts", 0):
        raise Killed


def test_parts_of_another_request_are_not_gone_on_with(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recommend_run, "ROWS_PER_PART", 320)
    with monkeypatch.context() as patched:
        patched.setattr(Unfinished, "finish", lambda self, names: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            rows_of(run_dir, tmp_path / "rows.csv", "recommend.batch_size=16")
    rows = rows_of(run_dir, tmp_path / "rows.csv", "recommend.batch_size=16", "recommend.k=3")
    assert rows["rank"].max() == 3
    assert len(rows) == 450


def test_a_second_writer_of_the_same_output_is_refused(run_dir: Path, tmp_path: Path):
    output = tmp_path / "rows.parquet"
    with (
        Lease(Path(f"{output}.unfinished"), "the first"),
        pytest.raises(ConfigError, match=r"recommend\.output=.* is being written"),
    ):
        rows_of(run_dir, output)
    assert not output.exists()


def test_the_formats_hold_the_same_rows(run_dir: Path, tmp_path: Path):
    titles = tmp_path / "items.csv"
    ids = log_of(run_dir)["item_id"].unique().sort()
    pl.DataFrame({"item_id": ids[5:], "title": [f'The "{id}", a; film' for id in ids[5:]]}).write_csv(titles)
    options = [f"recommend.item_file={titles}", "recommend.item_columns=[title]", "recommend.k=80"]
    options.append("recommend.leave_out_seen=false")
    frames = [rows_of(run_dir, tmp_path / f"rows{suffix}", *options) for suffix in (".parquet", ".csv", ".jsonl")]
    assert frames[0].columns == ["user_id", "rank", "item_id", "score", "source", "title"]
    for frame in frames[1:]:
        assert frame.equals(frames[0].cast(dict(zip(frame.columns, frame.dtypes, strict=True))))
    found = frames[0].unique("item_id")
    assert found["title"].null_count() == 5
    assert all(title == f'The "{id}", a; film' for id, title in found["item_id", "title"].drop_nulls().rows())


def test_users_of_a_file_get_the_lists_that_they_get_among_all(run_dir: Path, tmp_path: Path):
    every = lists_in(rows_of(run_dir, tmp_path / "all.parquet"))
    asked = [140, 3, 17, 3]
    (tmp_path / "users.csv").write_text("user_id\n" + "".join(f" {user}.0\n" for user in asked))
    rows = rows_of(run_dir, tmp_path / "some.parquet", f"recommend.users={tmp_path / 'users.csv'}")
    assert lists_in(rows) == {user: every[user] for user in sorted(set(asked))}


def as_events(log: pl.DataFrame, path: Path) -> None:
    log.write_parquet(path)


def as_lists(log: pl.DataFrame, path: Path) -> None:
    columns = ["item_id", "timestamp"]
    log.group_by("user_id", maintain_order=True).agg(columns).write_parquet(path)


def as_json_lists(log: pl.DataFrame, path: Path) -> None:
    log.group_by("user_id", maintain_order=True).agg("item_id", "timestamp").write_ndjson(path)


@pytest.mark.parametrize(
    ("write", "name"), [(as_events, "log.parquet"), (as_lists, "lists.parquet"), (as_json_lists, "lists.jsonl")]
)
def test_histories_of_a_file_get_the_lists_of_the_same_histories_in_the_store(
    run_dir: Path, tmp_path: Path, write: Callable[[pl.DataFrame, Path], None], name: str
):
    every = lists_in(rows_of(run_dir, tmp_path / "all.parquet"))
    log = log_of(run_dir).filter(pl.col("user_id") <= 20)
    renamed = log.with_columns(pl.col("user_id") + 1_000_000).sample(fraction=1, shuffle=True, seed=1)
    write(renamed, tmp_path / name)
    rows = rows_of(run_dir, tmp_path / "some.parquet", f"recommend.histories={tmp_path / name}")
    ties = log.filter(pl.struct("user_id", "timestamp").is_duplicated())["user_id"].unique().to_list()
    found = {user - 1_000_000: items for user, items in lists_in(rows).items()}
    assert found.keys() == set(range(1, 21))
    assert len(ties) < 10
    assert all(items == every[user] for user, items in found.items() if user not in ties)


def test_who_has_no_history_gets_the_popular_items_of_the_last_days(run_dir: Path, tmp_path: Path):
    (tmp_path / "new.csv").write_text("user_id,item_id,timestamp\nnobody,no such item,1600000000000\n")
    options = ["recommend.unknown_ids=skip", "recommend.popular_days=30", "recommend.k=5"]
    rows = rows_of(run_dir, tmp_path / "rows.csv", f"recommend.histories={tmp_path / 'new.csv'}", *options)
    log = log_of(run_dir)
    recent = log.filter(pl.col("timestamp") > pl.col("timestamp").max() - 30 * 24 * 3600 * 1000)
    counts = recent.group_by("item_id").len().sort(["len"], descending=True)["len"].head(5).to_list()
    assert rows["source"].to_list() == ["popular"] * 5
    assert rows["user_id"].to_list() == ["nobody"] * 5
    assert rows["score"].to_list() == counts


def test_neighbours_of_items_are_the_nearest_by_cosine_and_by_dot(run_dir: Path, tmp_path: Path):
    rows = rows_of(run_dir, tmp_path / "cosine.parquet", "recommend.what=similar_items", "recommend.k=79")
    dots = rows_of(
        run_dir,
        tmp_path / "dot.parquet",
        "recommend.what=similar_items",
        "recommend.k=79",
        "recommend.similarity=dot",
    )
    assert rows.columns == ["item_id", "rank", "similar_item_id", "score"]
    assert len(rows) == 80 * 79
    assert (rows["item_id"] != rows["similar_item_id"]).all()
    both = {}
    for frame in (rows, dots):
        assert (frame.group_by("item_id", maintain_order=True).agg(pl.col("score").diff().max())["score"] <= 0).all()
        pairs = frame.select(pl.concat_list("item_id", "similar_item_id").list.sort(), "score").rows()
        scores: dict[tuple[int, ...], set[float]] = {}
        for pair, score in pairs:
            scores.setdefault(tuple(pair), set()).add(score)
        assert all(len(each) == 1 for each in scores.values()), "nearness has no direction"
        both[len(both)] = scores
    assert both[0].keys() == both[1].keys()
    assert all(abs(next(iter(each))) <= 1 + 1e-6 for each in both[0].values())
    assert both[0] != both[1]


def test_items_are_chosen_by_files_and_by_columns(run_dir: Path, tmp_path: Path):
    ids = log_of(run_dir)["item_id"].unique().sort()
    items = pl.DataFrame({"item_id": ids, "in_stock": ids % 2 == 0, "kind": ids % 5})
    items.write_parquet(tmp_path / "items.parquet")
    items.filter(pl.col("kind") != 4).select("item_id").write_csv(tmp_path / "allowed.csv")
    items.filter(pl.col("kind") == 3).select("item_id").write_ndjson(tmp_path / "forbidden.jsonl")
    every = lists_in(rows_of(run_dir, tmp_path / "all.parquet", "recommend.k=80"))
    options = [
        f"recommend.allowed_items={tmp_path / 'allowed.csv'}",
        f"recommend.forbidden_items={tmp_path / 'forbidden.jsonl'}",
        f"recommend.item_file={tmp_path / 'items.parquet'}",
        "recommend.where=[in_stock=True,kind!=2]",
        "recommend.k=5",
    ]
    found = lists_in(rows_of(run_dir, tmp_path / "some.parquet", *options))
    wanted = set(items.filter(pl.col("in_stock") & pl.col("kind").is_in([0, 1]))["item_id"])
    assert found == {user: [item for item in items if item in wanted][:5] for user, items in every.items()}


def test_a_list_has_at_most_so_many_items_of_a_value(run_dir: Path, tmp_path: Path):
    ids = log_of(run_dir)["item_id"].unique().sort()
    items = pl.DataFrame({"item_id": ids, "kind": (ids % 7).cast(pl.String)})
    items.with_columns(kind=pl.when(ids % 7 > 0).then("kind")).write_csv(tmp_path / "items.csv")
    every = lists_in(rows_of(run_dir, tmp_path / "all.parquet", "recommend.k=80"))
    options = [f"recommend.item_file={tmp_path / 'items.csv'}", "recommend.diverse_by=kind"]
    found = lists_in(rows_of(run_dir, tmp_path / "some.parquet", *options, "recommend.max_per_value=2"))
    for user, items_of_user in every.items():
        kept = list[int]()
        for item in items_of_user:
            if item % 7 == 0 or sum(other % 7 == item % 7 for other in kept) < 2:
                kept.append(item)
        assert found[user] == kept[:10]


def test_only_events_that_count_are_seen(run_dir: Path, tmp_path: Path):
    """The list of a whole history and that of its training events differ, and only the first leaves out its items."""
    config = evaluated_run([f"run_dir={run_dir}"])
    manifest = load_manifest(config.data.store)
    histories = HistoryReader(config.data.store, manifest).read(0, manifest.num_users)
    raw = pl.read_parquet(Path(config.data.store) / "items.parquet")["raw_item"].to_numpy()
    users = pl.read_parquet(Path(config.data.store) / "histories" / "*.parquet")["raw_user"].to_list()
    for history, last in (("all", 0), ("before_validation", 2)):
        rows = rows_of(run_dir, tmp_path / f"{history}.parquet", f"recommend.history={history}", "recommend.k=80")
        lists = lists_in(rows)
        for user, (start, end) in enumerate(zip(histories.offsets[:-1], histories.offsets[1:], strict=True)):
            seen = np.unique(histories.item[start : end - last * (end - start >= 3)])
            assert set(lists[users[user]]) == set(raw.tolist()) - set(raw[seen].tolist())
