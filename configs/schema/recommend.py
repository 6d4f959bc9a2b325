"""What is recommended to whom, and where it is written; never a part of what a run is."""

from dataclasses import dataclass, field
from enum import Enum

from configs.bounds import COUNT, check_bounds
from configs.errors import require
from configs.paths import checked_path

OUTPUT_SUFFIXES = (".parquet", ".csv", ".jsonl")


class Recommended(str, Enum):
    """What the rows of the output are about."""

    USERS = "users"
    """The best items for each user."""
    SIMILAR_ITEMS = "similar_items"
    """The nearest items of each item."""


class CountedHistory(str, Enum):
    """Which events of a user in the store count as its history."""

    ALL = "all"
    BEFORE_VALIDATION = "before_validation"
    """Those for training alone."""
    BEFORE_TEST = "before_test"
    """All before the test event: what an evaluation sees."""


class SeenItems(str, Enum):
    """Whether items of a user's own history are left out."""

    AS_EVALUATED = "as_evaluated"
    """By ``evaluation.leave_out_seen``."""
    LEFT_OUT = "true"
    KEPT = "false"


class UnknownIds(str, Enum):
    """What ids of a file that the store does not have mean."""

    REFUSE = "refuse"
    SKIP = "skip"


class Similarity(str, Enum):
    """How near two items are, by the model's vectors of them."""

    COSINE = "cosine"
    DOT = "dot"


@dataclass(kw_only=True, slots=True)
class RecommendConfig:
    """What ``shardrec recommend`` writes."""

    what: Recommended = Recommended.USERS
    """Best items for each user, or for each item the nearest others."""
    k: int = 10
    """Rows for each user or item."""
    output: str = ""
    """File that is written, a path or URL ending with .parquet, .csv or .jsonl; empty: a Parquet file in run_dir."""
    overwrite: bool = False
    """Replace a file at ``recommend.output`` that `shardrec recommend` has not written."""
    users: str = ""
    """File of raw user ids: only these users of the store; empty: all."""
    histories: str = ""
    """File of histories of anybody, an event or a list of items a row, in the log's columns and those of features."""
    history: CountedHistory = CountedHistory.ALL
    """Events of the store that count as a user's history: all, or those before its validation or test event."""
    leave_out_seen: SeenItems = SeenItems.AS_EVALUATED
    """Items of the user's history are not recommended; as_evaluated: by ``evaluation.leave_out_seen``."""
    unknown_ids: UnknownIds = UnknownIds.REFUSE
    """Ids in a file that the store does not have end the command, or are skipped and counted."""
    user_column: str = ""
    """Column of raw user ids in ``recommend.users`` and ``.histories``; empty: ``data.columns.user``."""
    item_column: str = ""
    """Column of raw item ids in files of items and in ``recommend.histories``; empty: ``data.columns.item``."""
    allowed_items: str = ""
    """File of raw item ids: nothing else is recommended."""
    forbidden_items: str = ""
    """File of raw item ids that are not recommended."""
    item_file: str = ""
    """File with a row an item: its columns may be asked for below; empty: those of the store's items.parquet."""
    item_columns: list[str] = field(default_factory=list)
    """Columns of the item file that are written beside each recommended item, such as [title]."""
    where: list[str] = field(default_factory=list)
    """Only items with these values in the item file, such as [in_stock=true,category=film,category!=old]."""
    diverse_by: str = ""
    """Column of the item file of whose values each occurs at most ``recommend.max_per_value`` times in a list."""
    max_per_value: int = 1
    """Rows of a list that may have the same value of ``recommend.diverse_by``."""
    popular_days: int = 7
    """Users without a history get the most popular items of the last this many days of the store; 0: of all time."""
    similarity: Similarity = Similarity.COSINE
    """With what=similar_items, how near two vectors are: the cosine of their angle, or their dot product."""
    batch_size: int = 256
    """Users that are scored at once by a thread; part of what makes a result the same to the last digit."""

    def __post_init__(self) -> None:
        check_bounds(
            "recommend.",
            self,
            k=(1, 10**5),
            max_per_value=(1, COUNT),
            popular_days=(0, 10**6),
            batch_size=(1, 2**20),
        )
        for name in ("output", "users", "histories", "allowed_items", "forbidden_items", "item_file"):
            setattr(self, name, checked_path(f"recommend.{name}", getattr(self, name)))
        require(
            not self.output or self.output.endswith(OUTPUT_SUFFIXES),
            f"recommend.output={self.output}: name a file that ends with {', '.join(OUTPUT_SUFFIXES)}",
        )
        require(
            not (self.users and self.histories),
            f"recommend.users={self.users} are users of the store, recommend.histories={self.histories} others: set "
            f"one of the two",
        )
        if self.what is Recommended.SIMILAR_ITEMS:
            of_users = {"users": self.users, "histories": self.histories}
            for name, value in of_users.items():
                require(not value, f"recommend.{name}={value} needs recommend.what=users; similar_items has none")
        for each in self.where:
            column, equals, _ = each.partition("=")
            require(
                bool(equals) and bool(column.rstrip("!").strip()),
                f"recommend.where={each}: write COLUMN=VALUE or COLUMN!=VALUE",
            )
