"""The one place that knows which config makes which encoder."""

from typing import assert_never, cast

from configs.schema.model import EncoderConfig, ModelConfig, OutsideConfig, SASRecConfig
from models.encoders.encoder import Encoder
from models.encoders.sasrec import SASRec


def build_encoder(config: EncoderConfig, max_tokens: int) -> Encoder:
    """The encoder of ``config`` for histories of at most ``max_tokens``, a first user token included.

    Adding an encoder: its module and a case here.
    """
    match cast(ModelConfig, config):  # Hydra composes the base class, a type checker counts the cases
        case SASRecConfig() as own:
            return SASRec(own, max_tokens)
        case OutsideConfig() as other:
            built: Encoder = other.build(max_tokens)
            return built
        case never:
            assert_never(never)
