"""The one place that knows which config makes which encoder."""

from typing import assert_never, cast

from configs.schema.model import (
    BERT4RecConfig,
    DotConfig,
    EncoderConfig,
    ESASRecConfig,
    GRU4RecConfig,
    HSTUConfig,
    LastConfig,
    MeanConfig,
    ModelConfig,
    OutsideConfig,
    SASRecConfig,
    SigmoidLinearConfig,
)
from models.encoders.bert4rec import BERT4Rec
from models.encoders.classical import Dot, SigmoidLinear
from models.encoders.encoder import Encoder
from models.encoders.esasrec import ESASRec
from models.encoders.gru4rec import GRU4Rec
from models.encoders.hstu import HSTU
from models.encoders.pooled import LastToken, MeanToken
from models.encoders.sasrec import SASRec


def build_encoder(config: EncoderConfig, max_tokens: int) -> Encoder:
    """The encoder of ``config`` for histories of at most ``max_tokens``, a first user token included.

    Adding an encoder: its module and a case here.
    """
    match cast(ModelConfig, config):  # Hydra composes the base class, a type checker counts the cases
        case SASRecConfig() as own:
            return SASRec(own, max_tokens)
        case ESASRecConfig() as own:
            return ESASRec(own, max_tokens)
        case BERT4RecConfig() as own:
            return BERT4Rec(own, max_tokens)
        case HSTUConfig() as own:
            return HSTU(own, max_tokens)
        case GRU4RecConfig() as own:
            return GRU4Rec(own)
        case LastConfig() as own:
            return LastToken(own)
        case MeanConfig() as own:
            return MeanToken(own)
        case DotConfig() as own:
            return Dot(own)
        case SigmoidLinearConfig() as own:
            return SigmoidLinear(own)
        case OutsideConfig() as other:
            built: Encoder = other.build(max_tokens)
            return built
        case never:
            assert_never(never)
