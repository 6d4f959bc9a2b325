"""One run: every group together."""

from dataclasses import dataclass, field

from configs.bounds import COUNT, SEED, check_bounds
from configs.errors import require
from configs.paths import checked_path
from configs.run_dir import checked_run_dir
from configs.schema.checkpoint import CheckpointConfig
from configs.schema.data import DataConfig, Split
from configs.schema.evaluation import RATING_METRICS, EvaluationConfig
from configs.schema.export import ExportConfig
from configs.schema.follow import FollowConfig
from configs.schema.hardware import HardwareConfig
from configs.schema.loss import FullSoftmaxConfig, LossConfig, MSEConfig
from configs.schema.model import EncoderConfig, SASRecConfig
from configs.schema.nonfinite import NonFiniteConfig
from configs.schema.optimizer import OptimizerConfig, TableOptimizer
from configs.schema.recommend import RecommendConfig
from configs.schema.sharding import Sharding, ShardingConfig
from configs.schema.tracking import ProfileConfig, TrackingConfig
from configs.schema.train import TrainConfig
from configs.url import is_url


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """One run: what it reads, what it learns, on which devices, and where it writes."""

    run_dir: str = "runs/default"
    """Where the run is written: a folder, or a URL such as ``s3://BUCKET/PATH``."""
    config_dir: str = ""
    """Folder of your own YAML files, laid out as ``configs/``, such as ``experiment/mine.yaml``."""
    scratch_dir: str = ""
    """Folder of this machine in which a run behind a URL works; empty: the user's cache."""
    seed: int = 0
    """Seed of the first weights, the order of the data, dropout and negatives."""
    num_epochs: int = 10
    """Passes over the training users."""
    num_steps: int = 0
    """Stop after this many steps; 0: by ``num_epochs``."""
    log_every_steps: int = 20
    """Report loss and speed every this many steps."""
    init_from: str = ""
    """Run whose tables and encoder training begins with, by raw ids: a folder or a URL; empty: random weights."""
    init_optimizer: bool = False
    """With ``init_from``, take over the state of the run's optimizers too."""
    data: DataConfig = field(default_factory=DataConfig)
    """A log of your own, or a known data set: docs/sources.md."""
    model: EncoderConfig = field(default_factory=SASRecConfig)
    """The encoder."""
    loss: LossConfig = field(default_factory=FullSoftmaxConfig)
    """What a predicted token is scored against."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How weights are updated."""
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    """How tables are placed on ranks."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """The devices of the job and what they cost."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How a model is ranked."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """How a run is saved."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The final fit."""
    nonfinite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    """What happens to a loss or a gradient that is not finite."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where figures go besides the run's own files."""
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """A trace of some steps."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """What ``shardrec export`` writes."""
    recommend: RecommendConfig = field(default_factory=RecommendConfig)
    """What `shardrec recommend` writes of a trained run: docs/recommend.md."""
    follow: FollowConfig = field(default_factory=FollowConfig)
    """How `shardrec follow` goes through a log by time: docs/follow.md."""

    @property
    def label(self) -> str:
        """The feature of events that is predicted; empty where the loss asks for none."""
        return self.loss.label if isinstance(self.loss, MSEConfig) else ""

    @property
    def features_of_events(self) -> list[str]:
        """The features that a training batch holds."""
        names = self.model.event_features
        return [*names, self.label] if self.label else names

    def __post_init__(self) -> None:
        self.run_dir = checked_run_dir(self.run_dir)
        self._check_what_is_trained()
        self.config_dir = checked_path("config_dir", self.config_dir)
        self.scratch_dir = checked_path("scratch_dir", self.scratch_dir)
        for key, folder in (("scratch_dir", self.scratch_dir), ("data.spill_dir", self.data.spill_dir)):
            require(not is_url(folder), f"{key}={folder} is a URL; name a local folder (docs/object_stores.md)")
        check_bounds(
            "",
            self,
            seed=(0, SEED),
            num_epochs=(1, COUNT),
            num_steps=(0, 10**12),
            log_every_steps=(1, COUNT),
        )
        self._check_batch()
        self._check_label()
        self._check_target()
        self._check_table_weight_decay()

    def _check_target(self) -> None:
        target = self.train.target_quality
        if target is None:
            return
        require(
            self.data.split is not Split.NONE,
            f"train.target={self.train.target} is looked for in validation, and with data.split=none no event is "
            f"held out; choose another data.split",
        )
        require(
            bool(self.label) or target.metric not in RATING_METRICS,
            f"train.target={self.train.target}: {target.metric} is the error of a number, of loss=mse alone",
        )

    def _check_what_is_trained(self) -> None:
        self.init_from = checked_run_dir(self.init_from, "init_from") if self.init_from else ""
        require(
            not self.init_optimizer or bool(self.init_from),
            "init_optimizer=true takes over the optimizers of another run; name it by init_from=RUN_DIR",
        )
        for key, is_set in (("train.refit=true", self.train.refit), (f"init_from={self.init_from}", self.init_from)):
            require(
                not (is_set and self.data.split is Split.COLD_ITEMS),
                f"{key} does not go with data.split=cold_items, which measures a model that has seen no event of "
                f"some items; leave it out, or choose another data.split",
            )
        require(
            not (self.train.refit and self.data.split is Split.NONE),
            "train.refit=true needs events that are held out, and with data.split=none there are none: all are "
            "trained on already; leave train.refit out, or choose another data.split",
        )

    def _check_label(self) -> None:
        """What predicts a number, and what is measured of it."""
        require(
            bool(self.label) or self.evaluation.metric not in RATING_METRICS,
            f"evaluation.metric={self.evaluation.metric} is the error of a predicted number; it needs loss=mse",
        )
        require(
            not self.label or self.model.knows_users_alone,
            f"loss=mse with loss.label={self.label} trains model=dot or model=sigmoid_linear; set one of them, or "
            f"another loss",
        )

    def _check_batch(self) -> None:
        key = "data.global_batch_tokens" if self.data.global_batch_tokens else "data.global_batch_size"
        batch = self.data.global_batch_tokens or self.data.global_batch_size
        require(
            self.hardware.num_ranks <= batch,
            f"hardware.num_ranks={self.hardware.num_ranks} is more than a step can feed, {key}={batch}: some ranks "
            f"would never train; raise it",
        )

    def _check_table_weight_decay(self) -> None:
        is_replicated = self.sharding.strategy is Sharding.DATA_PARALLEL
        require(
            not (
                self.optimizer.table_weight_decay
                and is_replicated
                and self.optimizer.table is TableOptimizer.ROWWISE_ADAGRAD
            ),
            f"optimizer.table_weight_decay={self.optimizer.table_weight_decay}: with sharding.strategy=data_parallel "
            f"rowwise_adagrad would decay all rows, not those of a step; set sharding.strategy=row_wise, or "
            f"optimizer.table=adam",
        )
