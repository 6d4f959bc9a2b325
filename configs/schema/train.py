"""What is trained beside the model that validation selects."""

from dataclasses import dataclass
from enum import Enum


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
