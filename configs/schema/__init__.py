"""Every choice of a run, typed: a key, its default and its bounds are found in the file of its group."""

from configs.schema.checkpoint import CheckpointConfig as CheckpointConfig
from configs.schema.checkpoint import CheckpointUse as CheckpointUse
from configs.schema.data import ColumnsConfig as ColumnsConfig
from configs.schema.data import DataConfig as DataConfig
from configs.schema.data import Engine as Engine
from configs.schema.data import LongHistories as LongHistories
from configs.schema.data import Split as Split
from configs.schema.evaluation import EvaluationConfig as EvaluationConfig
from configs.schema.hardware import HardwareConfig as HardwareConfig
from configs.schema.loss import BCEConfig as BCEConfig
from configs.schema.loss import FullSoftmaxConfig as FullSoftmaxConfig
from configs.schema.loss import GBCEConfig as GBCEConfig
from configs.schema.loss import LossConfig as LossConfig
from configs.schema.loss import SampledConfig as SampledConfig
from configs.schema.loss import SampledSoftmaxConfig as SampledSoftmaxConfig
from configs.schema.model import SASRecConfig as SASRecConfig
from configs.schema.model import UserInput as UserInput
from configs.schema.nonfinite import NonFiniteConfig as NonFiniteConfig
from configs.schema.optimizer import OptimizerConfig as OptimizerConfig
from configs.schema.optimizer import TableOptimizer as TableOptimizer
from configs.schema.precision import Precision as Precision
from configs.schema.run import RunConfig as RunConfig
from configs.schema.sharding import Sharding as Sharding
from configs.schema.sharding import ShardingConfig as ShardingConfig
from configs.schema.train import RefitOn as RefitOn
from configs.schema.train import TrainConfig as TrainConfig
