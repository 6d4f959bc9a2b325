"""The Python API does what the commands do, and opens what they wrote."""

import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from logs import random_log

import shardrec
from configs.errors import ConfigError, DataError
from runs import TINY_RUN


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "log.parquet"
    random_log(600, kind="string").write_parquet(path)
    return path


@pytest.fixture(scope="module")
def store(log: Path) -> shardrec.Store:
    return shardrec.prepare([f"data.log={log}", f"data.store={log.parent / 'store'}"])


@pytest.fixture(scope="module")
def run(store: shardrec.Store) -> shardrec.Run:
    """Trained from a thread, as a web service or a notebook may."""
    runs = list[shardrec.Run]()
    overrides = [*TINY_RUN, f"data.store={store.path}", f"run_dir={Path(store.path).parent / 'run'}", "num_steps=4"]
    thread = threading.Thread(target=lambda: runs.append(shardrec.train(overrides)))
    thread.start()
    thread.join()
    return runs[0]


def test_a_stores_tables_hold_every_event_by_raw_id(log: Path, store: shardrec.Store) -> None:
    items, histories = store.items().column("raw_item").to_pylist(), pa.concat_tables(store.histories())
    found = sorted(
        (user, items[item])
        for user, row in zip(histories["raw_user"].to_pylist(), histories["item"].to_pylist(), strict=True)
        for item in row
    )
    told = random_log(600, kind="string")
    assert found == sorted(zip(told["user_id"].to_list(), told["item_id"].to_list(), strict=True))
    assert len(found) == store.manifest.num_events


def test_a_run_has_its_summary_metrics_and_config(run: shardrec.Run) -> None:
    written = json.loads((Path(run.path) / "summary.json").read_text())
    assert run.summary == {key: value for key, value in written.items() if key != "xxh3"}
    lines = [json.loads(line) for line in (Path(run.path) / "metrics.jsonl").read_text().splitlines()]
    metrics = run.metrics().to_pylist()
    assert [{key: value for key, value in row.items() if value is not None} for row in metrics] == lines
    assert run.config.model.embedding_dim == 8


def test_what_is_there_is_opened_again(store: shardrec.Store, run: shardrec.Run) -> None:
    opened = shardrec.open_run(run.path)
    assert opened == run
    assert shardrec.open_store(opened.config.data.store) == store


def test_errors_are_those_of_the_commands(
    store: shardrec.Store, run: shardrec.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        shardrec.open_run(str(tmp_path))
    with pytest.raises(DataError, match="manifest"):
        shardrec.open_store(str(tmp_path))
    with pytest.raises(ConfigError, match="num_epochs"):
        shardrec.load_config(["num_epochs=ten"])
    with pytest.raises(shardrec.CommandFailed) as failed:  # another run than the one in the folder
        shardrec.train([*TINY_RUN, f"data.store={store.path}", f"run_dir={run.path}", "num_steps=4", "seed=9"])
    assert failed.value.exit_code == 2
    assert "seed" in capfd.readouterr().err


def test_a_run_without_a_summary_says_so(run: shardrec.Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((Path(run.path) / "config.yaml").read_bytes())
    with pytest.raises(DataError, match="not finished"):
        _ = shardrec.open_run(str(tmp_path)).summary


def test_recommendations_are_the_best_items_by_the_items_vectors(run: shardrec.Run, store: shardrec.Store) -> None:
    raw, vectors = run.item_vectors()
    assert raw.to_pylist() == store.items().column("raw_item").to_pylist()
    assert vectors.shape == (store.manifest.num_items, 8)
    similar = run.recommend(what="similar_items", similarity="dot", k=3).to_pylist()
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    for row in similar:
        place = raw.to_pylist().index(row["item_id"])
        assert row["score"] == pytest.approx(np.sort(scores[place])[-row["rank"]], rel=1e-5)


@pytest.mark.slow
def test_recommendations_for_listed_users_and_for_histories_of_ones_own(run: shardrec.Run, store: shardrec.Store):
    table = pa.concat_tables(store.histories())
    raw = store.items().column("raw_item").to_pylist()
    user, history = table["raw_user"][0].as_py(), [raw[item] for item in table["item"][0].as_py()]
    stored = run.recommend(users=[user], k=4).to_pylist()
    own = run.recommend(histories={"somebody": history}, k=4).to_pylist()
    events = pa.table({"user_id": ["somebody"] * len(history), "item_id": history})
    of_table = run.recommend(histories=events, k=4).to_pylist()
    assert [row["item_id"] for row in stored] == [row["item_id"] for row in own]
    assert of_table == own
    assert {row["user_id"] for row in stored} == {user}
    with pytest.raises(shardrec.CommandFailed):
        run.recommend(users=["nobody of the store"])
