"""The oracle of the made log is a bound that the true model reaches, and is there for that log alone."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from configs.load import load_config
from configs.schema import DataConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline import synthetic
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import Subset
from train.evaluation import oracle

CONFIG = SyntheticConfig(num_users=800, num_items=300, mean_length=20, seed=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The whole log of ``CONFIG``."""
    return store_of(CONFIG, tmp_path_factory.mktemp("synthetic"))


def store_of(config: SyntheticConfig, folder: Path) -> str:
    synthetic.write_log(config, str(folder / "log.parquet"))
    prepare(DataConfig(log=str(folder / "log.parquet"), store=str(folder / "store")))
    return str(folder / "store")


def test_oracle_scores_are_the_generators_frequencies() -> None:
    """Cluster probabilities given history and taste equal what the generator draws, full clusters included."""
    config = SyntheticConfig(num_users=1, num_items=60, num_tastes=1, seed=2)
    world = synthetic.world_of(config)
    past = np.array([[1, 3] + [cluster + 3 * place for cluster in (0,) for place in range(2, 20)] + [0, 2, 4]])
    size = past.shape[1]
    num_seen = np.bincount(past[0] % 3, minlength=3)[None]
    item = np.concatenate([past, [[-1]]], axis=1)
    mass = oracle._cluster_mass(world, item, size, num_seen)[0, 0]
    assert num_seen[0, 0] == world.cluster_size[0]
    assert mass[0] == 0
    assert mass.sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    num_draws = 20_000
    pasts = np.repeat(past % 3, num_draws, axis=0)
    chosen = synthetic._draw_clusters(world.taste.cumsum(1), np.zeros(num_draws, np.int64), rng)
    follows = rng.random(num_draws) < world.transition_probability
    chosen = np.where(follows, world.successor(pasts[:, -2], pasts[:, -1]), chosen)
    chosen = synthetic._pass_on_full(world, chosen, pasts)
    assert np.bincount(chosen, minlength=3) / num_draws == pytest.approx(mass, abs=0.015)


def test_oracle_beats_every_wrong_belief(store: str) -> None:
    """Ranking by another world's probabilities, or by none of the transitions, is worse on average."""
    best = oracle.oracle_ndcg(CONFIG, store, Subset.TEST)
    weaker = SyntheticConfig(num_users=800, num_items=300, mean_length=20, seed=3, transition_probability=0.0)
    assert best > oracle.oracle_ndcg(weaker, store, Subset.TEST) + 0.05
    assert best == pytest.approx(oracle.oracle_ndcg(CONFIG, store, Subset.VALID), abs=0.06)


def test_the_oracle_does_not_depend_on_the_users_it_takes_at_once(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = oracle.oracle_ndcg(CONFIG, store, Subset.TEST)
    monkeypatch.setattr(oracle, "ORACLE_SCORES", 50 * CONFIG.num_items)
    assert oracle.oracle_ndcg(CONFIG, store, Subset.TEST) == pytest.approx(whole, rel=1e-12)


def test_another_logs_store_is_refused(store: str) -> None:
    with pytest.raises(DataError, match="prepare its own log"):
        oracle.oracle_ndcg(SyntheticConfig(num_users=800, num_items=100), store, Subset.TEST)


def test_the_oracle_of_a_catalogue_that_users_exhaust_is_there(tmp_path: Path) -> None:
    config = SyntheticConfig(num_users=200, num_items=41, mean_length=40)
    assert 0 < oracle.oracle_ndcg(config, store_of(config, tmp_path), Subset.TEST) < 1


def test_it_answers_only_the_question_that_the_model_was_asked(store: str) -> None:
    made = [f"data.store={store}", "data=synthetic", "data.synthetic.num_users=800", "data.synthetic.num_items=300"]
    made += ["data.synthetic.mean_length=20", "data.synthetic.seed=3", f"data.store={store}"]
    assert oracle.oracle_report(load_config(made)) == {
        "oracle_ndcg@10": oracle.oracle_ndcg(CONFIG, store, Subset.TEST)
    }
    for other in (
        ["data.split=global_time"],
        ["evaluation.leave_out_seen=false"],
        ["data.min_user_events=2"],
        ["data.synthetic.num_users=0"],
    ):
        assert oracle.oracle_report(load_config([*made, *other])) == {}
