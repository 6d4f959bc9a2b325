"""The plain way to train the same model: padded batches, ``nn.Embedding``, ``nn.TransformerEncoder``, AdamW on all.

B histories, L the padded length, N predictions, M negatives, V items, D the width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from configs.schema import SASRecConfig
from data_pipeline.batch import SequenceBatch
from models.encoders.sasrec import SASRec

NAMES = {
    "blocks.": "layers.",
    "attention_norm": "norm1",
    "feed_forward_norm": "norm2",
    "qkv.": "self_attn.in_proj_",
    "project": "self_attn.out_proj",
    "feed_forward.0": "linear1",
    "feed_forward.3": "linear2",
}
"""Our name of a part, and the name in ``nn.TransformerEncoder``."""


class PaddedReference(nn.Module):
    """The mathematics of ``models.encoders.sasrec`` and of an item table, from torch's own layers, on one device.

    Histories are padded on the right to ``max_history``, where causal attention needs no further mask.
    """

    def __init__(self, config: SASRecConfig, num_items: int, max_history: int) -> None:
        super().__init__()
        self.item = nn.Embedding(num_items, config.embedding_dim)
        self.position = nn.Embedding(max_history, config.embedding_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = _encoder(config)
        nn.init.normal_(self.item.weight, std=config.initial_std)
        nn.init.normal_(self.position.weight, std=config.initial_std)
        mask = nn.Transformer.generate_square_subsequent_mask(max_history)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, item: Tensor) -> Tensor:
        """Item ids ``[B, L]`` to queries ``[B, L, D]``."""
        tokens = self.dropout(self.item(item) + self.position.weight)
        queries: Tensor = self.encoder(tokens, mask=self.mask, is_causal=True)
        return queries

    def copy_weights(self, encoder: SASRec, item_vectors: Tensor) -> None:
        """Take over the weights of our encoder and item table ``[V, D]``."""
        ours = encoder.state_dict()
        theirs = {f"encoder.{name}": value for name, value in _renamed(ours).items()}
        theirs |= {"item.weight": item_vectors, "position.weight": ours["position.weight"]}
        self.load_state_dict(theirs)


def reference_loss(model: PaddedReference, batch: SequenceBatch, negatives: Tensor | None) -> Tensor:
    """Mean cross-entropy of every event given those before it.

    Without ``negatives`` over the whole catalogue, with logits ``[N, V]``; else over the target and the item ids
    ``negatives`` ``[M]``, drawn uniformly and shared by all, with the logQ correction; one that is the target does
    not count.
    """
    device = model.item.weight.device
    inputs, targets, is_token = (part.to(device) for part in padded(batch, model.position.num_embeddings))
    query, target = model(inputs)[is_token], targets[is_token]
    if negatives is None:
        return functional.cross_entropy(query @ model.item.weight.t(), target)
    positive = (query * model.item(target)).sum(1, keepdim=True)
    log_expected = math.log(len(negatives) / model.item.num_embeddings)
    negative = query @ model.item(negatives).t() - log_expected
    negative = negative.masked_fill(target[:, None] == negatives, float("-inf"))
    return functional.cross_entropy(torch.cat([positive, negative], 1), torch.zeros_like(target))


def reference_step(
    model: PaddedReference, optimizer: torch.optim.Optimizer, batch: SequenceBatch, num_negatives: int
) -> None:
    """One update of everything; ``num_negatives`` 0 is the whole catalogue."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    num_items, device = model.item.weight.shape[0], model.item.weight.device
    negatives = torch.randint(num_items, (num_negatives,), device=device) if num_negatives else None
    reference_loss(model, batch, negatives).backward()
    optimizer.step()


def padded(batch: SequenceBatch, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input ids, target ids (both int64) and which places are predictions, ``[B, length]`` each."""
    histories = [history for history in torch.split(batch.item, batch.lengths.tolist()) if len(history) > 1]
    events = pad_sequence(histories, batch_first=True)
    events = functional.pad(events, (0, length + 1 - events.shape[1]))
    num_predictions = torch.tensor([len(history) - 1 for history in histories])
    return events[:, :-1], events[:, 1:], torch.arange(length) < num_predictions[:, None]


def _encoder(config: SASRecConfig) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        config.embedding_dim,
        config.num_heads,
        config.feed_forward_dim,
        config.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    layer.self_attn.dropout = config.attention_dropout
    norm = nn.LayerNorm(config.embedding_dim)
    return nn.TransformerEncoder(layer, config.num_blocks, norm, enable_nested_tensor=False)


def _renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our blocks' weights under the names of torch's layers."""
    renamed = {}
    for name, value in ours.items():
        if name.startswith("position"):
            continue
        for part, other in NAMES.items():
            name = name.replace(part, other)
        renamed[name] = value
    return renamed
