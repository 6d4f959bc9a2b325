"""Metrics agree with those of other packages, where these are installed and mean the same."""

import warnings

import numpy as np
import polars as pl
import pytest

from train.evaluation.census import Catalogue
from train.evaluation.list_quality import self_information
from train.evaluation.metrics import quality_of

pytestmark = pytest.mark.slow
NUM_USERS, NUM_ITEMS = 200, 60


def test_ranx_finds_the_same_metrics_of_ranks() -> None:
    ranx = pytest.importorskip("ranx")
    random = np.random.default_rng(0)
    scores, target = random.random((NUM_USERS, NUM_ITEMS)), random.integers(0, NUM_ITEMS, NUM_USERS)
    rank = 1 + (scores > scores[np.arange(NUM_USERS), target][:, None]).sum(1)
    wanted = ranx.Qrels({str(user): {str(item): 1} for user, item in enumerate(target)})
    ranked = ranx.Run(
        {str(user): {str(item): score for item, score in enumerate(row.tolist())} for user, row in enumerate(scores)}
    )
    found = quality_of(rank)
    names = {"hit_rate": "hr", "ndcg": "ndcg", "mrr": "mrr", "map": "mrr"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cutoff in (1, 5, 10, 20, 50):
            theirs = ranx.evaluate(wanted, ranked, [f"{name}@{cutoff}" for name in names])
            theirs = theirs if isinstance(theirs, dict) else {f"hit_rate@{cutoff}": theirs}
            for name, own in names.items():
                assert theirs[f"{name}@{cutoff}"] == pytest.approx(found[f"{own}@{cutoff}"], abs=1e-9), name


def test_rectools_finds_the_same_novelty() -> None:
    metrics = pytest.importorskip("rectools.metrics")
    random = np.random.default_rng(1)
    before = pl.DataFrame(
        {"user_id": random.integers(0, 80, 900), "item_id": np.minimum(random.geometric(0.1, 900) - 1, NUM_ITEMS - 1)}
    ).unique()
    lists = np.stack([random.permutation(NUM_ITEMS)[:10] for _ in range(NUM_USERS)])
    rows = {
        "user_id": np.repeat(np.arange(NUM_USERS), 10),
        "item_id": lists.ravel(),
        "rank": np.tile(np.arange(1, 11), NUM_USERS),
    }
    theirs = metrics.MeanInvUserFreq(k=10).calc(pl.DataFrame(rows).to_pandas(), before.to_pandas())
    users_of = np.bincount(before["item_id"].to_numpy(), minlength=NUM_ITEMS)
    catalogue = Catalogue(users_of, users_of, before["user_id"].n_unique())
    assert self_information(catalogue)[lists].mean() == pytest.approx(theirs, abs=1e-9)
