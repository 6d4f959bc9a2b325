"""Small encoders of every kind, and histories for them."""

from typing import Any

import torch
from torch import Tensor

from configs.schema import UserInput
from configs.schema.model import ENCODERS, EncoderConfig, Masking
from data_pipeline.batch import SequenceBatch
from models.encoders.encoder import Times
from models.masking import hidden_events
from models.recommender import Recommender
from models.tables import build_tables

WIDTH, MAX_HISTORY, NUM_ITEMS = 8, 9, 30
NAMES = [name for name, config in ENCODERS.items() if not config().knows_users_alone]
"""Those that read histories."""
CAUSAL = [name for name in NAMES if ENCODERS[name]().masking is None]


def small_config(name: str, **choices: Any) -> EncoderConfig:
    """Of the encoder ``name``, with weights that are large enough for every part to matter."""
    return ENCODERS[name](**{"embedding_dim": WIDTH, "initial_std": 0.5, **choices})


def small_recommender(
    name: str, num_users: int = 0, num_codes: dict[str, int] | None = None, **choices: Any
) -> Recommender:
    """In evaluation, over a table of :data:`NUM_ITEMS`; not a bias is zero, since one could hide a fault."""
    torch.manual_seed(0)
    config = small_config(name, **choices)
    users = num_users if config.user_input is not UserInput.NONE else 0
    tables = build_tables(NUM_ITEMS, users, WIDTH).to_empty(device="cpu")
    recommender = Recommender(config, tables, MAX_HISTORY, num_codes).eval()
    for weight in recommender.parameters():
        if weight.dim() == 1 or weight.shape[0] in (NUM_ITEMS, num_users):
            torch.nn.init.normal_(weight)
    return recommender


def batch_of(histories: list[list[int]], times_s: list[list[int]] | None = None) -> SequenceBatch:
    """Of dense items; an hour lies between two events where ``times_s`` says nothing."""
    lengths = torch.tensor([len(history) for history in histories], dtype=torch.int64)
    item = torch.tensor([item for history in histories for item in history], dtype=torch.int64)
    given = times_s or [[3600 * place for place in range(len(history))] for history in histories]
    time = torch.tensor([1000 * each for history in given for each in history], dtype=torch.int64)
    return SequenceBatch(item, lengths, torch.arange(len(lengths)), time)


def hiding(batch: SequenceBatch, is_causal: bool, step: int = 0) -> SequenceBatch:
    """``batch`` as an encoder is trained on it: half of the events are hidden from one that sees the future."""
    if not is_causal:
        batch.is_hidden = hidden_events(batch, Masking(0.5, 0.1), seed=0, step=step)
    return batch


def random_times(lengths: Tensor, draw: torch.Generator) -> Times:
    """Ascending in each history, from seconds to years apart."""
    event, asked = [], []
    for length in lengths.tolist():
        steps = (10 ** (torch.rand(length + 1, generator=draw) * 8)).long() * 1000
        event.append(steps.cumsum(0)[:-1])
        asked.append(steps.cumsum(0)[1:])
    return Times(torch.cat(event), torch.cat(asked))
