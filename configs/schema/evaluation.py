"""How a model is ranked."""

import re
from dataclasses import dataclass, field
from enum import Enum

from configs.bounds import COUNT, check_bounds
from configs.errors import require
from configs.paths import checked_path

LOSS = "loss"
RATING_METRICS = ("rmse", "mae")
"""Of ``loss=mse``."""
LESS_IS_BETTER = (LOSS, *RATING_METRICS)
RANK_METRICS = ("hr", "ndcg", "mrr", "precision", "recall", "f1")
"""Metrics of a ranking, each at a cutoff."""
GROUPS = ("history_length", "activity", "item_popularity")
"""By what targets are grouped where nothing else is said."""
_CHOOSABLE = re.compile(rf"({'|'.join(RANK_METRICS)})@[1-9][0-9]{{0,5}}|mrr|{'|'.join(LESS_IS_BETTER)}")


def metric_name(text: str) -> str:
    """The metric that ``text`` means: of one relevant item map and mrr are one number."""
    return re.sub(r"^map@", "mrr@", text.lower())


def check_metric(shown: str, metric: str) -> None:
    """Raise :class:`ConfigError`, which begins with ``shown``, where no validation has ``metric``."""
    require(
        bool(_CHOOSABLE.fullmatch(metric)),
        f"{shown} is unknown; set it to loss, mrr, or one of {', '.join(RANK_METRICS)} with a cutoff, as ndcg@10",
    )


class TrainedBaseline(str, Enum):
    """Models of items alone, fitted in closed form."""

    ITEM_KNN = "item_knn"
    EASE = "ease"


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """Exact ranking of the whole catalogue."""

    every_epochs: int = 1
    """Validate, and keep the best model, every this many epochs."""
    every_steps: int = 0
    """Validate every this many steps; 0: by ``evaluation.every_epochs``."""
    first_step: int = 0
    """Validations before this step are left out: those that cannot be good enough cost time all the same."""
    metric: str = "ndcg@10"
    """Figure of the validation that decides which model is the best, and when patience is at its end: hr, ndcg, mrr,
    map, precision, recall or f1 at any cutoff, mrr, or loss: the targets' cross-entropy over the whole catalogue.
    With loss=mse also rmse or mae."""
    patience: int = 10
    """Validations in a row without a better model that end the run."""
    leave_out_seen: bool = True
    """Items of the user's history are no candidates."""
    batch_size: int = 256
    """Users that are ranked at once."""
    num_bootstrap_samples: int = 1000
    """Resamplings of the test users behind each confidence interval."""
    groups: list[str] = field(default_factory=lambda: list(GROUPS))
    """By what the quality on the test is reported group by group: history_length, activity, item_popularity, features
    of events and of items, and columns of the two files below."""
    user_file: str = ""
    """File with a row a user, whose columns ``evaluation.groups`` may name; empty: none."""
    user_column: str = ""
    """Its column of raw user ids; empty: ``data.columns.user``."""
    item_file: str = ""
    """File with a row an item, whose columns ``evaluation.groups`` may name; empty: none."""
    item_column: str = ""
    """Its column of raw item ids; empty: ``data.columns.item``."""
    trained_baselines: list[TrainedBaseline] = field(default_factory=list)
    """Further baselines of the test, item_knn and ease, each fitted on the training events with a matrix of all pairs
    of items."""
    knn_neighbours: int = 100
    """Neighbours of each item in item_knn."""
    ease_l2: float = 500.0
    """Regularisation of ease."""
    lists: bool = True
    """Also make the ten best items of each test user, for coverage, novelty, diversity, popularity and exposure."""
    diversity_by: str = ""
    """Item feature that says how near two items of a list are, or co_occurrence; empty: categories where there are
    some."""

    def __post_init__(self) -> None:
        self.metric = metric_name(self.metric)
        check_metric(f"evaluation.metric={self.metric}", self.metric)
        for name in ("user_file", "item_file"):
            setattr(self, name, checked_path(f"evaluation.{name}", getattr(self, name)))
        doubled = [name for name in self.groups if self.groups.count(name) > 1]
        require(not doubled, f"evaluation.groups={self.groups} names {', '.join(doubled[:1])} twice; name it once")
        check_bounds(
            "evaluation.",
            self,
            every_epochs=(1, COUNT),
            every_steps=(0, COUNT),
            first_step=(0, 10**12),
            patience=(1, COUNT),
            batch_size=(1, 2**20),
            num_bootstrap_samples=(1, 10**5),
            knn_neighbours=(1, COUNT),
            ease_l2=(1e-6, 1e12),
        )
