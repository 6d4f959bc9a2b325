"""What is trained beside the model that validation selects."""

from dataclasses import dataclass
from enum import Enum

from configs.schema.target import Target, parse_target


class RefitOn(str, Enum):
    """The events of a final fit; ``validation``: those of training and of validation."""

    VALIDATION = "validation"
    EVERYTHING = "everything"


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The final fit: a model trained anew on more events, when validation has said for how long."""

    refit: bool = False
    """When the best step is known and the test events were ranked, train again for as many epochs, on more events,
    and keep that as the model to ship."""
    refit_on: RefitOn = RefitOn.VALIDATION
    """Events of the final fit: validation (those of training and validation) or everything (the test events too)."""
    target: str = ""
    """Quality at which a run ends, as METRIC:VALUE, such as ``ndcg@10:0.17``: the first validation that reaches it is
    the last, and the summary says what that has cost; empty: none."""

    def __post_init__(self) -> None:
        if self.target:
            parse_target(self.target)

    @property
    def target_quality(self) -> Target | None:
        """Of ``target``; None where there is none."""
        return parse_target(self.target) if self.target else None
