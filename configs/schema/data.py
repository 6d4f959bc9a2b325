"""The log, its store, and how the store is cut into batches."""

from dataclasses import dataclass, field
from enum import Enum

from configs.bounds import COUNT, check_bounds
from configs.errors import require
from configs.machine import suitable_prepare_gib
from configs.paths import checked_folder, checked_path
from configs.schema.features import FeatureConfig, check_features
from configs.schema.item_features import ItemFeatureConfig, check_item_features
from configs.schema.source import Layout, SourceConfig
from configs.schema.split import check_global_time
from configs.schema.synthetic import SyntheticConfig


class Engine(str, Enum):
    """Which program turns a log into a store; both make the same one."""

    EMBEDDED = "embedded"
    """Polars on this machine."""
    SPARK = "spark"
    """A Spark cluster."""


class Split(str, Enum):
    """How a history is cut into training, validation and test events."""

    LEAVE_ONE_OUT = "leave_one_out"
    GLOBAL_TIME = "global_time"
    COLD_ITEMS = "cold_items"
    """No event of some items is for training: how well they are found by their content alone."""
    NONE = "none"
    """Nothing is held out: every event is for training, and there is no quality."""


class LongHistories(str, Enum):
    """Which training sequences a history longer than ``data.max_history`` gives."""

    LATEST = "latest"
    WINDOWS = "windows"


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """Names of the log's columns; an empty ``event_type`` means that the log has none."""

    user: str = "user_id"
    """The log's column of users."""
    item: str = "item_id"
    """The log's column of items."""
    timestamp: str = "timestamp"
    """The log's column of times; empty: the order of the rows is that of the events."""
    event_type: str = ""
    """The log's column of kinds of events; empty: it has none."""


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """The log, the store made of it, and how the store is cut into batches."""

    log: str = ""
    """File, folder, glob or URL of the log: Parquet, CSV or JSON lines."""
    store: str = ""
    """Folder or URL of the store that is made of the log."""
    version: int = 0
    """Version of the store to train on; 0: the newest when the run began."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Names of the log's columns."""
    source: SourceConfig = field(default_factory=SourceConfig)
    """How the files of the log are written."""
    event_types: list[str] = field(default_factory=list)
    """Keep these kinds of events alone, such as [buy]; empty: all."""
    features: dict[str, FeatureConfig] = field(default_factory=dict)
    """Further columns to keep of each event, by the name that models know them by."""
    items: str = ""
    """File or URL of what is known of items beside their ids: Parquet, CSV or JSON lines; docs/item_content.md."""
    items_column: str = ""
    """Column of items in ``data.items``; empty: as ``data.columns.item``."""
    item_features: dict[str, ItemFeatureConfig] = field(default_factory=dict)
    """Columns of ``data.items`` to keep of each item, by the name that models know them by."""
    deduplicate: bool = False
    """Events of the same user, item, time and kind count once."""
    min_user_events: int = 1
    """Users with fewer events are left out."""
    min_item_events: int = 1
    """Items with fewer events are left out."""
    max_bad_fraction: float = 0.01
    """A larger share of broken rows is an error."""
    memory_gib: float = 0.0
    """GiB of events that prepare holds in memory, the rest on disk; auto, or 0: a quarter of the machine's memory."""
    spill_dir: str = ""
    """Folder in which prepare keeps what does not fit in memory; empty: next to the store."""
    append: bool = False
    """Add the log to a store that is there, instead of preparing it from this log alone."""
    engine: Engine = Engine.EMBEDDED
    """Program that prepares: Polars on this machine, or Spark."""
    spark_master: str = ""
    """Such as ``spark://HOST:7077``; empty: what SPARK_REMOTE or spark-submit says, or else this machine."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """A made-up log, in place of one that does not exist."""
    split: Split = Split.LEAVE_ONE_OUT
    """How a history is cut into training, validation and test events."""
    global_time_valid_fraction: float = 0.8
    """With split=global_time, the share of the events, by time, after which validation begins."""
    global_time_test_fraction: float = 0.9
    """With split=global_time, the share of the events, by time, after which the test begins."""
    global_time_valid: str = ""
    """Instead of the fraction, the date or time on which validation begins, such as 2024-01-31; without a zone it is
    UTC."""
    global_time_test: str = ""
    """Instead of the fraction, the date or time on which the test begins."""
    cold_items_fraction: float = 0.1
    """With split=cold_items, the share of the items that no event is trained on: half for validation, half for the
    test."""
    cold_items_seed: int = 0
    """With split=cold_items, which items these are, by their raw ids."""
    max_history: int = 200
    """Newest events of a history that the model sees."""
    long_histories: LongHistories = LongHistories.LATEST
    """Training sequences of a history longer than ``data.max_history``: its newest events, or windows over all."""
    crop_fraction: float = 1.0
    """Augmentation: in each epoch a training sequence is a random part of itself, of this share of it; 1: off."""
    global_batch_size: int = 128
    """Training users, or sequences with windows, of a step over all ranks together."""
    global_batch_tokens: int = 0
    """Mean events of a step over all ranks together; 0: by ``data.global_batch_size``."""
    num_data_shards: int = 0
    """Ranges of users, each of which gives every step the same share; 0: a divisor of the batch, up to 8."""
    shuffle_window_users: int = 8192
    """Users of a data shard that are shuffled together, in whole segments of 1,024 users."""
    prefetch_batches: int = 4
    """Batches that are made ahead of training."""
    prefetch_mib: int = 128
    """MiB that a rank's threads may take for events ahead of the batches; 0: no threads, read when needed."""

    def __post_init__(self) -> None:
        check_bounds(
            "data.",
            self,
            version=(0, 999_999),
            min_user_events=(1, COUNT),
            min_item_events=(1, COUNT),
            max_bad_fraction=(0, 1),
            memory_gib=(0, 2**20),
            cold_items_fraction=(1e-6, 0.9),
            cold_items_seed=(0, 2**31 - 1),
            max_history=(1, 10**6),
            crop_fraction=(1e-6, 1),
            global_batch_size=(1, 2**24),
            global_batch_tokens=(0, COUNT),
            num_data_shards=(0, 2**12),
            shuffle_window_users=(1, COUNT),
            prefetch_batches=(0, 10**4),
            prefetch_mib=(0, 2**24),
        )
        self.log = checked_path("data.log", self.log)
        self.store = checked_folder("data.store", self.store)
        self.items = checked_path("data.items", self.items)
        self.spill_dir = checked_folder("data.spill_dir", self.spill_dir)
        self.memory_gib = self.memory_gib or suitable_prepare_gib()
        self.num_data_shards = _fitting_shards(self.num_data_shards, self.global_batch_size)
        check_global_time(self)
        require(
            not (self.append and self.engine is Engine.SPARK),
            "data.append=true is the embedded engine's; set data.engine=embedded, or prepare all files at once",
        )
        require(
            not self.event_types or bool(self.columns.event_type),
            f"data.event_types={self.event_types} needs data.columns.event_type: name the column that holds them",
        )
        self._check_times()
        check_features(self.features)
        check_item_features(self.item_features)

    def _check_times(self) -> None:
        """A log without times, where the order of the rows is the order; history lines are always such a log."""
        if self.source.layout is Layout.HISTORY_LINES:
            other = {"event_type": self.columns.event_type, "features": ",".join(self.features)}
            other["timestamp"] = self.columns.timestamp if self.columns.timestamp != ColumnsConfig().timestamp else ""
            for key, value in other.items():
                name = "data.features" if key == "features" else f"data.columns.{key}"
                require(not value, f"{name}={value}: data.source.layout=history_lines holds users and items alone")
            self.columns.timestamp = ""
        for key in ("user", "item"):
            require(bool(getattr(self.columns, key)), f"data.columns.{key} is empty; name the log's column of it")
        if self.columns.timestamp:
            return
        none = "data.columns.timestamp is empty, so that the log has no times"
        require(
            not self.deduplicate, f"data.deduplicate=true: {none}, and equal events cannot be told from repeated ones"
        )
        require(self.split is not Split.GLOBAL_TIME, f"data.split=global_time: {none}; set data.split=leave_one_out")


def _fitting_shards(num_shards: int, batch_size: int) -> int:
    """``num_shards``, or for 0 the largest divisor of ``batch_size`` up to 8; :class:`ConfigError` where a batch
    cannot be cut into equal shares."""
    if num_shards == 0:
        return max(number for number in range(1, 9) if batch_size % number == 0)
    below = batch_size // num_shards * num_shards
    nearest = f"{below} or {below + num_shards}" if below else f"{num_shards}"
    require(
        batch_size % num_shards == 0,
        f"data.global_batch_size={batch_size} must be a multiple of data.num_data_shards={num_shards}, so that a "
        f"step takes the same share from every data shard: set data.global_batch_size={nearest}, or leave "
        f"data.num_data_shards out",
    )
    return num_shards
