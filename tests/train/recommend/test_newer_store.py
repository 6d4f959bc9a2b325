"""A run recommends by the events of a store that has grown: what it would say of these histories, by raw id."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from logs import random_log
from polars.testing import assert_frame_equal

from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import identity_digests, load_manifest
from ranks import run_ranks
from runs import run_here, tiny_run
from train.evaluate import main as evaluate
from train.evaluation.preflight import evaluated_run, keys_of
from train.evaluation.preflight import main as evaluation_preflight
from train.preflight import main as train_preflight
from train.recommend.preflight import main as preflight
from train.recommend.run import recommend

USERS, ITEMS = 40, 30


def store_of(folder: Path, name: str, *parts: pl.DataFrame) -> str:
    """A store of the first part, to which the others were appended."""
    for number, part in enumerate(parts):
        log = folder / f"{name}-{number}.parquet"
        part.write_parquet(log)
        prepare(DataConfig(log=str(log), store=str(folder / name), append=number > 0))
    return str(folder / name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with and without a user table over ``store``; ``renumbered``, the same events under other dense ids; and
    ``grown``, which holds more users, items and events."""
    folder = tmp_path_factory.mktemp("world")
    log = random_log(600, kind="string", num_users=USERS, num_items=ITEMS).drop("event_type")
    log = log.with_columns(timestamp=pl.int_range(len(log)) * 60_000 + 10**12)
    more = random_log(300, seed=5, kind="string", num_users=USERS + 15, num_items=ITEMS + 20).drop("event_type")
    more = more.with_columns(timestamp=pl.int_range(len(more)) * 60_000 + 2 * 10**12)
    newcomer = pl.DataFrame({"user_id": ["newcomer"], "item_id": ["novelty"], "timestamp": [2 * 10**12 + 10**8]})
    store = store_of(folder, "store", log)
    other = store_of(folder, "renumbered", log.tail(200), log.head(400))
    digests = [identity_digests(load_manifest(each)) for each in (store, other)]
    assert digests[0]["data.fingerprint"] == digests[1]["data.fingerprint"]
    assert digests[0] != digests[1]
    store_of(folder, "grown", log, pl.concat([more, newcomer]))
    assert run_here(tiny_run(store, folder / "run", 4)) == 0
    assert run_here([*tiny_run(store, folder / "with_users", 4), "model.user_input=add"]) == 0
    return folder


def recommend_here(overrides: list[str]) -> None:
    """On the process group that is there, or alone. Collective."""
    recommend(evaluated_run(overrides), keys_of(overrides))


def rows_of(world: Path, output: Path, *overrides: str, run: str = "run") -> pl.DataFrame:
    recommend_here([f"run_dir={world / run}", f"recommend.output={output}", *overrides])
    return pl.read_parquet(output).sort("user_id", "rank")


def assert_same_lists(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """The same items; scores may differ in the last bits, since users lie in other blocks."""
    assert len(found) > 100
    assert_frame_equal(found, wanted, abs_tol=1e-5)


def test_the_runs_own_store_by_name_changes_no_byte(world: Path, tmp_path: Path):
    rows_of(world, tmp_path / "own.parquet")
    rows_of(world, tmp_path / "named.parquet", f"data.store={world / 'store'}")
    assert (tmp_path / "own.parquet").read_bytes() == (tmp_path / "named.parquet").read_bytes()


@pytest.mark.parametrize("run", ["run", "with_users"])
@pytest.mark.parametrize("history", ["all", "before_test"])
def test_the_same_events_under_other_dense_ids_give_the_same_rows(
    world: Path, tmp_path: Path, run: str, history: str
):
    options = [f"recommend.history={history}", "recommend.item_columns=[count]", "recommend.k=15"]
    wanted = rows_of(world, tmp_path / "own.parquet", *options, run=run)
    found = rows_of(world, tmp_path / "other.parquet", *options, f"data.store={world / 'renumbered'}", run=run)
    assert_same_lists(found, wanted)


def test_neighbours_of_items_do_not_depend_on_events(world: Path, tmp_path: Path):
    options = ["recommend.what=similar_items", "recommend.k=3"]
    outputs = [tmp_path / name for name in ("own.parquet", "grown.parquet")]
    for output, store in zip(outputs, ("store", "grown"), strict=True):
        recommend_here(
            [f"run_dir={world / 'run'}", f"recommend.output={output}", *options, f"data.store={world / store}"]
        )
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_a_grown_store_gives_what_the_model_says_of_its_known_events(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    grown = pl.concat([pl.read_parquet(world / f"grown-{number}.parquet") for number in range(2)])
    grown.write_parquet(tmp_path / "whole.parquet")
    histories = [f"recommend.histories={tmp_path / 'whole.parquet'}", "recommend.unknown_ids=skip"]
    by_file = rows_of(world, tmp_path / "by_file.parquet", *histories)
    capfd.readouterr()
    found = rows_of(world, tmp_path / "grown.parquet", f"data.store={world / 'grown'}")
    told = capfd.readouterr().out
    is_model = pl.col("source") == "model"
    assert_same_lists(found.filter(is_model), by_file.filter(is_model))
    known = set(pl.read_parquet(world / "store-0.parquet")["item_id"])
    items = set(grown["item_id"])
    events = grown.filter(~pl.col("item_id").is_in(known))
    assert f"{len(items - known)} of the {len(items)} items of data.store={world / 'grown'} are new" in told
    assert f"their {len(events)} of {len(grown)} events are left out of histories" in told
    assert set(found["item_id"]) <= known
    assert found["user_id"].n_unique() == grown["user_id"].n_unique()
    popular = found.filter(pl.col("user_id") == "newcomer")
    assert set(popular["source"]) == {"popular"}
    recent = grown.filter((pl.col("timestamp") >= 2 * 10**12) & pl.col("item_id").is_in(known))
    counts = recent.group_by("item_id").len().sort("len", descending=True)["len"].head(10)
    assert popular["score"].to_list() == counts.to_list(), "of the store's last days, by its own numbers"


def test_users_whom_a_user_table_does_not_know_are_told_and_ranked(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    found = rows_of(world, tmp_path / "rows.parquet", f"data.store={world / 'grown'}", run="with_users")
    told = capfd.readouterr().out
    log, grown = (pl.read_parquet(world / "store-0.parquet"), pl.read_parquet(world / "grown-1.parquet"))
    users = set(log["user_id"]), set(log["user_id"]) | set(grown["user_id"])
    assert f"{len(users[1]) - len(users[0])} of the {len(users[1])} users of" in told
    model = found.filter(pl.col("source") == "model")
    assert set(model["user_id"]) - users[0]


def test_any_number_of_ranks_writes_the_same_file_of_a_grown_store(world: Path, tmp_path: Path):
    contents = []
    for num_ranks in (1, 2):
        output = tmp_path / f"rows-{num_ranks}.parquet"
        words = [f"run_dir={world / 'run'}", f"recommend.output={output}", f"data.store={world / 'grown'}"]
        run_ranks(num_ranks, recommend_here, [*words, "recommend.batch_size=16", "hardware.num_threads=1"])
        contents.append(output.read_bytes())
    assert contents[0] == contents[1]


def test_items_and_users_of_files_are_those_that_both_know(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    grown = f"data.store={world / 'grown'}"
    (tmp_path / "users.csv").write_text("user_id\nnewcomer\n")
    (tmp_path / "items.csv").write_text("item_id\nnovelty\n")
    words = [f"run_dir={world / 'run'}", f"recommend.users={tmp_path / 'users.csv'}"]
    assert preflight([*words, grown]) == 0
    assert preflight(words) == 2
    assert "1 of 1 user ids are not in data.store=" in capsys.readouterr().err
    assert preflight([f"run_dir={world / 'run'}", grown, f"recommend.allowed_items={tmp_path / 'items.csv'}"]) == 2
    assert f"1 of 1 item ids are not in what run_dir={world / 'run'} learnt from (novelty)" in capsys.readouterr().err


def test_a_store_of_other_ids_is_refused(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    numbers = store_of(tmp_path, "numbers", random_log(200, num_users=USERS, num_items=ITEMS))
    assert preflight([f"run_dir={world / 'run'}", f"data.store={numbers}"]) == 2
    told = capsys.readouterr().err
    assert "has item ids that are whole numbers, those of run_dir=" in told
    assert told.count("\n") == 1


def test_a_store_of_which_the_model_knows_no_item_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = random_log(200, kind="string").with_columns(item_id="other " + pl.col("item_id"))
    words = [f"run_dir={world / 'run'}", f"data.store={store_of(tmp_path, 'others', log)}"]
    for verb in (preflight, evaluate):
        assert verb(words) == 2
        told = capsys.readouterr().err
        assert f"run_dir={world / 'run'} knows none of the 30 items of data.store=" in told
        assert told.count("\n") == 1


def test_a_run_without_a_model_is_refused_by_every_verb_that_uses_one(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_dir = tmp_path / "run"
    shutil.copytree(world / "run", run_dir, ignore=shutil.ignore_patterns("best", "best.*"))
    for verb in (preflight, evaluation_preflight):
        assert verb([f"run_dir={run_dir}"]) == 2
        told = capsys.readouterr().err
        assert f"run_dir={run_dir} has no final or best model yet" in told
        assert told.count("\n") == 1
    assert train_preflight([*tiny_run(str(world / "store"), tmp_path / "next", 2), f"init_from={run_dir}"]) == 2
    assert f"init_from={run_dir} has no final or best model yet" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


def test_histories_of_a_file_are_those_of_users_whom_the_model_knows(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    log = pl.read_parquet(world / "store-0.parquet")
    log = log.unique(["user_id", "item_id", "timestamp"], maintain_order=True)
    unknown = log.filter(pl.col("user_id") == log["user_id"][0]).with_columns(user_id=pl.lit("another"))
    pl.concat([log, unknown]).write_parquet(tmp_path / "log.parquet")
    histories = f"recommend.histories={tmp_path / 'log.parquet'}"
    found = rows_of(world, tmp_path / "by_file.parquet", histories, run="with_users")
    assert "1 of 41 users are new to the model" in capfd.readouterr().out
    of_store = rows_of(world, tmp_path / "of_store.parquet", run="with_users")
    assert_same_lists(found.filter(pl.col("user_id") != "another"), of_store)
    another = found.filter(pl.col("user_id") == "another")
    assert set(another["source"]) == {"model"}
