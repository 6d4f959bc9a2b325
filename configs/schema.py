"""Every choice of a run, typed: the one place where a key, its default and its bounds are found."""

from dataclasses import dataclass, field
from enum import Enum

from configs.engine import Engine
from configs.errors import require
from configs.feature_schema import FeatureConfig, check_features
from configs.run_place import checked_run_dir
from configs.source import SourceConfig
from configs.synthetic_schema import SyntheticConfig
from configs.url import is_url


class Split(str, Enum):
    """How a history is cut into training, validation and test events."""

    LEAVE_ONE_OUT = "leave_one_out"
    GLOBAL_TIME = "global_time"


class LongHistories(str, Enum):
    """Which training sequences a history longer than ``data.max_history`` gives."""

    LATEST = "latest"
    WINDOWS = "windows"


class UserInput(str, Enum):
    """How the user table reaches the encoder."""

    NONE = "none"
    ADD = "add"
    FIRST_TOKEN = "first_token"


class Sharding(str, Enum):
    """How TorchRec cuts a table over ranks; ``planner`` lets TorchRec choose."""

    PLANNER = "planner"
    TABLE_WISE = "table_wise"
    ROW_WISE = "row_wise"
    COLUMN_WISE = "column_wise"
    DATA_PARALLEL = "data_parallel"


class TableOptimizer(str, Enum):
    """Update rule of the embedding tables."""

    ROWWISE_ADAGRAD = "rowwise_adagrad"
    ADAGRAD = "adagrad"
    SGD = "sgd"
    ADAM = "adam"


class Precision(str, Enum):
    """Number format of matrix products in training."""

    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(kw_only=True, slots=True)
class ColumnsConfig:
    """Names of the log's columns; an empty ``event_type`` means that the log has none."""

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "timestamp"
    event_type: str = ""


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """The log, the store made of it, and how the store is cut into batches."""

    log: str = ""
    store: str = ""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    event_types: list[str] = field(default_factory=list)
    features: dict[str, FeatureConfig] = field(default_factory=dict)
    """Further columns to keep of each event, by the name that models know them by."""
    deduplicate: bool = False
    min_user_events: int = 1
    min_item_events: int = 1
    max_bad_fraction: float = 0.01
    memory_gib: float = 2.0
    spill_dir: str = ""
    """Where prepare keeps what does not fit in memory; empty: beside the store."""
    append: bool = False
    """Add the log to a store that is there, instead of making it anew."""
    engine: Engine = Engine.EMBEDDED
    spark_master: str = ""
    """Such as ``spark://host:7077``; empty: what SPARK_REMOTE or spark-submit says, or else this machine."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    split: Split = Split.LEAVE_ONE_OUT
    global_time_valid_fraction: float = 0.8
    global_time_test_fraction: float = 0.9
    max_history: int = 200
    long_histories: LongHistories = LongHistories.LATEST
    crop_fraction: float = 1.0
    """Augmentation: in each epoch a training sequence is a random part of itself, of this share of it; 1: off."""
    global_batch_size: int = 128
    global_batch_tokens: int = 0
    """Mean events of a global batch; 0: it has ``global_batch_size`` users, or sequences with ``windows``."""
    num_lanes: int = 8
    window_row_groups: int = 8
    prefetch_batches: int = 4
    prefetch_mib: int = 128
    """What a rank's threads may take for events ahead of the batches; 0: no threads, read when needed."""

    def __post_init__(self) -> None:
        for name in (
            "min_user_events",
            "min_item_events",
            "max_history",
            "global_batch_size",
            "num_lanes",
            "window_row_groups",
        ):
            require(getattr(self, name) >= 1, f"data.{name}={getattr(self, name)} must be at least 1")
        require(
            self.global_batch_size % self.num_lanes == 0,
            f"data.global_batch_size={self.global_batch_size} must be a multiple of data.num_lanes={self.num_lanes}, "
            f"so that a step takes the same share from every lane",
        )
        require(
            0 < self.global_time_valid_fraction < self.global_time_test_fraction < 1,
            f"data.global_time_valid_fraction={self.global_time_valid_fraction} must lie below "
            f"data.global_time_test_fraction={self.global_time_test_fraction}, both inside (0, 1)",
        )
        require(
            not (self.append and self.engine is Engine.SPARK),
            "data.append=true is the embedded engine's; set data.engine=embedded, or prepare all files at once",
        )
        require(0 < self.crop_fraction <= 1, f"data.crop_fraction={self.crop_fraction} must lie in (0, 1]")
        require(0 <= self.max_bad_fraction <= 1, f"data.max_bad_fraction={self.max_bad_fraction} must lie in [0, 1]")
        for name in ("prefetch_batches", "prefetch_mib", "global_batch_tokens"):
            require(getattr(self, name) >= 0, f"data.{name}={getattr(self, name)} must not be negative")
        require(
            not self.event_types or bool(self.columns.event_type),
            f"data.event_types={self.event_types} needs data.columns.event_type: name the column that holds them",
        )
        require(self.memory_gib > 0, f"data.memory_gib={self.memory_gib} must be positive")
        check_features(self.features)


@dataclass(kw_only=True, slots=True)
class SASRecConfig:
    """Causal self-attention over the history (Kang & McAuley, 2018), pre-norm."""

    embedding_dim: int = 64
    num_blocks: int = 2
    num_heads: int = 2
    feed_forward_dim: int = 64
    dropout: float = 0.2
    attention_dropout: float = 0.2
    user_input: UserInput = UserInput.NONE
    event_features: list[str] = field(default_factory=list)
    """Features of the store that are added to the vectors of the history's items."""
    initial_std: float = 0.02
    precision: Precision = Precision.FP32
    """Of the blocks' linear layers in training; norms, residuals and ranking are float32."""

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "num_blocks", "num_heads", "feed_forward_dim"):
            require(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be at least 1")
        require(
            self.embedding_dim % self.num_heads == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of model.num_heads={self.num_heads}, "
            f"so that every head gets the same width",
        )
        require(
            self.embedding_dim % 4 == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of 4: fbgemm aligns its rows to 16 bytes",
        )
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) <= 0.95, f"model.{name}={getattr(self, name)} must lie in [0, 0.95]")
        names = self.event_features
        require(len(set(names)) == len(names), f"model.event_features={names} names a feature twice")
        require(self.initial_std > 0, f"model.initial_std={self.initial_std} must be positive")


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Which items a predicted token is scored against; each variant adds its own choices."""


@dataclass(kw_only=True, slots=True)
class FullSoftmaxConfig(LossConfig):
    """Cross-entropy over the whole catalogue, ``chunk_tokens`` rows of the logits at a time."""

    chunk_tokens: int = 0
    """0: what suits the device, on a CPU few enough for its cache, on a GPU as many as 2 GiB hold."""
    precision: Precision = Precision.FP32

    def __post_init__(self) -> None:
        require(self.chunk_tokens >= 0, f"loss.chunk_tokens={self.chunk_tokens} must not be negative")


@dataclass(kw_only=True, slots=True)
class SampledConfig(LossConfig):
    """One shared set of negatives a step, drawn by count ** ``popularity_exponent`` (0 is uniform)."""

    num_negatives: int = 512
    popularity_exponent: float = 0.0
    in_batch_negatives: int = 0

    def __post_init__(self) -> None:
        require(self.num_negatives >= 1, f"loss.num_negatives={self.num_negatives} must be at least 1")
        require(self.in_batch_negatives >= 0, f"loss.in_batch_negatives={self.in_batch_negatives} must be >= 0")
        require(self.popularity_exponent >= 0, f"loss.popularity_exponent={self.popularity_exponent} must be >= 0")


@dataclass(kw_only=True, slots=True)
class SampledSoftmaxConfig(SampledConfig):
    """Softmax over the target and sampled negatives with the logQ correction (Bengio & Senecal, 2008)."""

    correct_log_q: bool = True


@dataclass(kw_only=True, slots=True)
class BCEConfig(SampledConfig):
    """Binary cross-entropy of the target against sampled negatives (SASRec's own loss)."""


@dataclass(kw_only=True, slots=True)
class GBCEConfig(SampledConfig):
    """BCE with the calibrated positive of gSASRec (Petrov & Macdonald, 2023); ``calibration`` is its t."""

    calibration: float = 0.75

    def __post_init__(self) -> None:
        SampledConfig.__post_init__(self)
        require(0 <= self.calibration <= 1, f"loss.calibration={self.calibration} must lie in [0, 1]")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW for the dense part, ``table`` for the embedding tables; both follow one warm-up + cosine schedule."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    table: TableOptimizer = TableOptimizer.ROWWISE_ADAGRAD
    table_lr: float = 0.05
    warmup_steps: int = 100
    final_lr_fraction: float = 0.1

    def __post_init__(self) -> None:
        for name in ("lr", "table_lr"):
            require(getattr(self, name) > 0, f"optimizer.{name}={getattr(self, name)} must be positive")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name}={getattr(self, name)} must lie in [0, 1)")
        require(self.weight_decay >= 0, f"optimizer.weight_decay={self.weight_decay} must not be negative")
        require(self.warmup_steps >= 0, f"optimizer.warmup_steps={self.warmup_steps} must not be negative")
        require(
            0 <= self.final_lr_fraction <= 1,
            f"optimizer.final_lr_fraction={self.final_lr_fraction} must lie in [0, 1]",
        )


@dataclass(kw_only=True, slots=True)
class ShardingConfig:
    """How the tables are placed on ranks."""

    strategy: Sharding = Sharding.PLANNER


@dataclass(kw_only=True, slots=True)
class HardwareConfig:
    """The devices of one machine and what they cost; ``num_ranks`` processes, one device each."""

    name: str = "cpu"
    device: str = "cpu"
    num_ranks: int = 2
    num_threads: int = 1
    usd_per_device_hour: float = 0.05
    watts_per_device: float = 20.0
    timeout_s: int = 300

    def __post_init__(self) -> None:
        for name in ("num_ranks", "num_threads", "timeout_s"):
            require(getattr(self, name) >= 1, f"hardware.{name}={getattr(self, name)} must be at least 1")
        require(self.device in ("cpu", "cuda"), f"hardware.device={self.device} is unknown; set it to cpu or cuda")


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """Exact ranking of the whole catalogue."""

    every_epochs: int = 1
    every_steps: int = 0
    """Validate every so many steps; 0: by ``every_epochs``."""
    patience: int = 10
    leave_out_seen: bool = True
    batch_size: int = 256
    num_bootstrap_samples: int = 1000

    def __post_init__(self) -> None:
        for name in ("every_epochs", "patience", "batch_size", "num_bootstrap_samples"):
            require(getattr(self, name) >= 1, f"evaluation.{name}={getattr(self, name)} must be at least 1")
        require(self.every_steps >= 0, f"evaluation.every_steps={self.every_steps} must not be negative")


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """How often a run is saved and how many checkpoints are kept besides the best."""

    every_steps: int = 500
    keep_last: int = 2
    asynchronous: bool = True
    """Write while training goes on; false: training waits."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep_last"):
            require(getattr(self, name) >= 1, f"checkpoint.{name}={getattr(self, name)} must be at least 1")


@dataclass(kw_only=True, slots=True)
class GuardConfig:
    """What happens when a loss or a gradient is not finite: the step is left out, then the run is rolled back."""

    max_bad_steps: int = 5
    """So many bad steps in a row restore the last whole checkpoint, and those steps are not trained again."""
    max_rollbacks: int = 3
    """One more ends the run."""

    def __post_init__(self) -> None:
        require(self.max_bad_steps >= 1, f"guard.max_bad_steps={self.max_bad_steps} must be at least 1")
        require(self.max_rollbacks >= 0, f"guard.max_rollbacks={self.max_rollbacks} must not be negative")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """One run: what it reads, what it learns, on which devices, and where it writes."""

    run_dir: str = "runs/default"
    scratch_dir: str = ""
    """Of this machine, for a ``run_dir`` behind a URL; empty: the user's cache."""
    seed: int = 0
    num_epochs: int = 10
    num_steps: int = 0
    log_every_steps: int = 20
    data: DataConfig = field(default_factory=DataConfig)
    model: SASRecConfig = field(default_factory=SASRecConfig)
    loss: LossConfig = field(default_factory=FullSoftmaxConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        self.run_dir = checked_run_dir(self.run_dir)
        for key, folder in (("scratch_dir", self.scratch_dir), ("data.spill_dir", self.data.spill_dir)):
            require(not is_url(folder), f"{key}={folder} is a URL; name a local folder (docs/object_stores.md)")
        require(self.seed >= 0, f"seed={self.seed} must not be negative")
        require(self.num_epochs >= 1, f"num_epochs={self.num_epochs} must be at least 1")
        require(self.num_steps >= 0, f"num_steps={self.num_steps} must not be negative (0: by num_epochs)")
        require(self.log_every_steps >= 1, f"log_every_steps={self.log_every_steps} must be at least 1")
        require(
            self.hardware.num_ranks <= self.data.num_lanes,
            f"hardware.num_ranks={self.hardware.num_ranks} is more than data.num_lanes={self.data.num_lanes}; "
            f"a rank owns whole lanes: raise data.num_lanes",
        )
