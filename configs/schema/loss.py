"""What a predicted token is scored against."""

from dataclasses import dataclass

from configs.bounds import check_bounds
from configs.schema.precision import Precision


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """Which items a predicted token is scored against; each variant adds its own choices."""


@dataclass(kw_only=True, slots=True)
class MSEConfig(LossConfig):
    """Squared error of a number that each event has, such as a rating; for ``model=dot`` and ``sigmoid_linear``."""

    label: str = ""
    """The feature of the events that is predicted, a number, such as rating."""


@dataclass(kw_only=True, slots=True)
class FullSoftmaxConfig(LossConfig):
    """Cross-entropy over the whole catalogue, ``chunk_tokens`` rows of the logits at a time."""

    chunk_tokens: int = 0
    """Rows of the logits that are computed at once; 0: as many as suit the device."""
    precision: Precision = Precision.FP32
    """Number format of the logits' products."""

    def __post_init__(self) -> None:
        check_bounds("loss.", self, chunk_tokens=(0, 2**31))


@dataclass(kw_only=True, slots=True)
class SampledConfig(LossConfig):
    """One shared set of negatives a step, drawn by count ** ``popularity_exponent`` (0 is uniform)."""

    num_negatives: int = 512
    """Negatives drawn each step and shared by all of its tokens."""
    popularity_exponent: float = 0.0
    """Negatives are drawn in proportion to count ** this; 0: uniformly."""
    in_batch_negatives: int = 0
    """Further negatives drawn each step from the targets of the batch."""

    @property
    def needs_counts(self) -> bool:
        """Whether the draw, or its correction, depends on how many training events an item has."""
        return self.popularity_exponent > 0 or self.in_batch_negatives > 0

    def __post_init__(self) -> None:
        check_bounds(
            "loss.", self, num_negatives=(1, 2**31), in_batch_negatives=(0, 2**31), popularity_exponent=(0, 10)
        )


@dataclass(kw_only=True, slots=True)
class SampledSoftmaxConfig(SampledConfig):
    """Softmax over the target and sampled negatives with the logQ correction (Bengio & Senecal, 2008)."""

    correct_log_q: bool = True
    """Subtract the log of each negative's probability from its logit (the logQ correction)."""


@dataclass(kw_only=True, slots=True)
class BCEConfig(SampledConfig):
    """Binary cross-entropy of the target against sampled negatives (SASRec's own loss)."""


@dataclass(kw_only=True, slots=True)
class GBCEConfig(SampledConfig):
    """BCE with the calibrated positive of gSASRec (Petrov & Macdonald, 2023); ``calibration`` is its t."""

    calibration: float = 0.75
    """The t of gSASRec: 0 is plain BCE, 1 fully calibrated probabilities."""

    def __post_init__(self) -> None:
        SampledConfig.__post_init__(self)
        check_bounds("loss.", self, calibration=(0, 1))
