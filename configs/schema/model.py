"""The choices of an encoder: a base that all share, a dataclass for each, and the name that chooses it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from configs.bounds import check_bounds
from configs.errors import require
from configs.schema.precision import Precision


class UserInput(str, Enum):
    """How the user table reaches the encoder."""

    NONE = "none"
    ADD = "add"
    FIRST_TOKEN = "first_token"


class TimeInput(str, Enum):
    """Which times of the events the encoder sees."""

    NONE = "none"
    EVENT = "event"
    """How long before the last event each one was."""
    REQUEST = "request"
    """How long before the request each one was: for the test it sees when the event to be found took place."""


class Masking(NamedTuple):
    """Which events of a training sequence are hidden from the encoder and predicted."""

    fraction: float
    """Of the events, each drawn apart; the last one where none is."""
    last_fraction: float
    """Of the sequences: the last event alone is hidden, as it is when a recommendation is asked for."""


@dataclass(kw_only=True, slots=True)
class EncoderConfig:
    """What every encoder has; each variant adds its own choices."""

    embedding_dim: int = 64
    """Width of the tables and of the model, a multiple of 4."""
    dropout: float = 0.2
    """Share of values dropped in training, except inside of attention."""
    user_input: UserInput = UserInput.NONE
    """How the user table reaches the encoder."""
    event_features: list[str] = field(default_factory=list)
    """Features of the store that are added to the vectors of the history's items."""
    item_features: list[str] = field(default_factory=list)
    """Features of the store's items whose vectors are added to the items' own: docs/item_content.md."""
    initial_std: float = 0.02
    """Standard deviation of the first weights and table rows."""

    def __post_init__(self) -> None:
        check_bounds("model.", self, embedding_dim=(1, 2**16), dropout=(0, 0.95), initial_std=(1e-6, 100))
        require(
            self.embedding_dim % 4 == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of 4: fbgemm aligns its rows to 16 bytes",
        )
        names = self.event_features
        require(len(set(names)) == len(names), f"model.event_features={names} names a feature twice")
        names = self.item_features
        require(len(set(names)) == len(names), f"model.item_features={names} names a feature twice")

    @property
    def depth(self) -> tuple[str, int]:
        """The key that says how many layers of weights follow one another, and its value."""
        return "embedding_dim", 0

    @property
    def num_layer_weights(self) -> int:
        """Weights of one of these layers."""
        return 0

    @property
    def reads_time(self) -> bool:
        """Whether the encoder wants the times of the events."""
        return False

    @property
    def reads_request_time(self) -> bool:
        """Whether it wants to know when it is asked what comes next, too."""
        return False

    @property
    def masking(self) -> Masking | None:
        """Which events it is trained to find; None: each one, from those before it."""
        return None

    @property
    def why_no_export(self) -> str:
        """The key that keeps the encoder from being exported, and why; empty where it can be."""
        return ""

    @property
    def knows_users_alone(self) -> bool:
        """Whether a user is what the row of the user table says, whatever the history."""
        return False

    @property
    def is_probability(self) -> bool:
        """Whether the sigmoid of a score is what is predicted."""
        return False


@dataclass(kw_only=True, slots=True)
class LayersConfig(EncoderConfig):
    """An encoder of several blocks, one after another."""

    num_blocks: int = 2
    """Blocks of the encoder, one after another."""

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        check_bounds("model.", self, num_blocks=(1, 1000))

    @property
    def depth(self) -> tuple[str, int]:
        """The number of blocks."""
        return "num_blocks", self.num_blocks


@dataclass(kw_only=True, slots=True)
class AttentionConfig(LayersConfig):
    """Blocks of attention with several heads."""

    num_heads: int = 2
    """Attention heads of each block."""
    attention_dropout: float = 0.2
    """Share of attention weights dropped in training."""
    feed_forward_dim: int = 64
    """Width of the feed-forward layers."""
    precision: Precision = Precision.FP32
    """Number format of the blocks' linear layers in training; norms, residuals and ranking are float32."""

    def __post_init__(self) -> None:
        LayersConfig.__post_init__(self)
        check_bounds("model.", self, num_heads=(1, 2**16), feed_forward_dim=(1, 2**20), attention_dropout=(0, 0.95))
        check_heads(self.embedding_dim, self.num_heads)


@dataclass(kw_only=True, slots=True)
class SASRecConfig(AttentionConfig):
    """Causal self-attention over the history (Kang & McAuley, 2018), pre-norm."""

    @property
    def num_layer_weights(self) -> int:
        """Queries, keys, values, projection, and the two layers of the feed-forward part."""
        return 4 * self.embedding_dim**2 + 2 * self.embedding_dim * self.feed_forward_dim


@dataclass(kw_only=True, slots=True)
class ESASRecConfig(AttentionConfig):
    """SASRec with gated residual paths and a gated feed-forward part, the LiGR block of eSASRec (RecSys 2025)."""

    @property
    def num_layer_weights(self) -> int:
        """Those of SASRec, two gates, and a third feed-forward layer."""
        return 6 * self.embedding_dim**2 + 3 * self.embedding_dim * self.feed_forward_dim


@dataclass(kw_only=True, slots=True)
class BERT4RecConfig(AttentionConfig):
    """Attention to both sides, trained to find hidden events (Sun et al., CIKM 2019), pre-norm."""

    mask_fraction: float = 0.2
    """Share of a training sequence's events that are hidden and predicted; at least one is."""
    mask_last_fraction: float = 0.1
    """Share of the training sequences in which the last event alone is hidden, as it is in ranking."""

    def __post_init__(self) -> None:
        AttentionConfig.__post_init__(self)
        check_bounds("model.", self, mask_fraction=(0.01, 0.95), mask_last_fraction=(0, 1))

    @property
    def num_layer_weights(self) -> int:
        """Those of SASRec."""
        return 4 * self.embedding_dim**2 + 2 * self.embedding_dim * self.feed_forward_dim

    @property
    def masking(self) -> Masking:
        """Drawn anew for each step."""
        return Masking(self.mask_fraction, self.mask_last_fraction)


@dataclass(kw_only=True, slots=True)
class HSTUConfig(LayersConfig):
    """Attention through SiLU with a gate, moved by places and times of the events (Zhai et al., ICML 2024)."""

    num_heads: int = 2
    """Attention heads of each block."""
    time: TimeInput = TimeInput.EVENT
    """Between which times attention is moved: of two events, of an event and the request, or none."""

    def __post_init__(self) -> None:
        LayersConfig.__post_init__(self)
        check_bounds("model.", self, num_heads=(1, 2**16))
        check_heads(self.embedding_dim, self.num_heads)

    @property
    def num_layer_weights(self) -> int:
        """Gate, values, queries, keys, and the projection."""
        return 5 * self.embedding_dim**2

    @property
    def reads_time(self) -> bool:
        """Unless it was chosen to read none."""
        return self.time is not TimeInput.NONE

    @property
    def reads_request_time(self) -> bool:
        """Where it was chosen."""
        return self.time is TimeInput.REQUEST

    @property
    def why_no_export(self) -> str:
        """What calls the exported program gives it no times."""
        if not self.reads_time:
            return ""
        return f"model.time={self.time.value}: an exported program is not given the times of the events yet"


@dataclass(kw_only=True, slots=True)
class GRU4RecConfig(LayersConfig):
    """Recurrent layers over the history (Hidasi et al., 2016), as wide as the model."""

    @property
    def num_layer_weights(self) -> int:
        """Three gates of the input and of the state."""
        return 6 * self.embedding_dim**2

    @property
    def why_no_export(self) -> str:
        """torch unrolls it."""
        return "model=gru4rec: torch.export makes recurrent layers a program of histories of one length alone"


@dataclass(kw_only=True, slots=True)
class LastConfig(EncoderConfig):
    """The vector of the last item: what one item alone tells."""


@dataclass(kw_only=True, slots=True)
class MeanConfig(EncoderConfig):
    """The mean of the vectors of the history."""


@dataclass(kw_only=True, slots=True)
class UserModelConfig(EncoderConfig):
    """A model that knows a user by the row of the user table alone."""

    dropout: float = 0.0
    user_input: UserInput = UserInput.FIRST_TOKEN

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        name = next((name for name, config in ENCODERS.items() if type(self) is config), "dot")
        require(
            self.user_input is UserInput.FIRST_TOKEN,
            f"model.user_input={self.user_input.value}: model={name} knows users by the user table alone; leave the "
            f"key out",
        )
        require(
            not self.event_features,
            f"model.event_features={self.event_features}: model={name} reads no events of the history; leave the key "
            f"out",
        )

    @property
    def masking(self) -> Masking:
        """Every event is to be found, the first one too: none is read."""
        return Masking(1.0, 0.0)

    @property
    def knows_users_alone(self) -> bool:
        """Always."""
        return True


@dataclass(kw_only=True, slots=True)
class DotConfig(UserModelConfig):
    """Matrix factorisation: the product of the user's and the item's vector (Koren et al., 2009)."""


@dataclass(kw_only=True, slots=True)
class SigmoidLinearConfig(UserModelConfig):
    """sigma(W1 u + W2 i + b), a probability: every user has the same order of items."""

    @property
    def is_probability(self) -> bool:
        """Always."""
        return True


@dataclass(kw_only=True, slots=True)
class OutsideConfig(EncoderConfig):
    """Base of an encoder that is installed beside this project: docs/add_a_model.md."""

    def build(self, max_tokens: int) -> Any:
        """The encoder, as :class:`models.encoders.encoder.Encoder` says, for at most ``max_tokens`` a history."""
        raise NotImplementedError(f"{type(self).__name__} says how its encoder is built")


ModelConfig = (
    SASRecConfig
    | ESASRecConfig
    | BERT4RecConfig
    | HSTUConfig
    | GRU4RecConfig
    | LastConfig
    | MeanConfig
    | DotConfig
    | SigmoidLinearConfig
    | OutsideConfig
)
"""Every config that :func:`models.encoders.build.build_encoder` has a case for."""

ENCODERS: dict[str, type[EncoderConfig]] = {
    "sasrec": SASRecConfig,
    "esasrec": ESASRecConfig,
    "bert4rec": BERT4RecConfig,
    "hstu": HSTUConfig,
    "gru4rec": GRU4RecConfig,
    "last": LastConfig,
    "mean": MeanConfig,
    "dot": DotConfig,
    "sigmoid_linear": SigmoidLinearConfig,
}
"""By the name that chooses it: ``model=sasrec``. The first is the default."""


def check_heads(width: int, num_heads: int) -> None:
    """Raise :class:`ConfigError` where heads would differ in width."""
    require(
        width % num_heads == 0,
        f"model.embedding_dim={width} must be a multiple of model.num_heads={num_heads}, so that every head gets the "
        f"same width",
    )
