"""A recommender: tables, an encoder, and the way from a batch to queries.

T events in the batch, B histories, N predictions (T - B, or what is hidden), C candidates, D the width of the model.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torchrec import EmbeddingCollection, KeyedJaggedTensor

from configs.schema import EncoderConfig, UserInput
from data_pipeline.batch import SequenceBatch
from models.attention.dispatch import Layout
from models.encoders.build import build_encoder
from models.encoders.classical import UserEncoder
from models.encoders.encoder import Encoder, MaskedEncoder, Times
from models.event_features import EventFeatures
from models.item_content import ItemContent
from models.loss.loss_inputs import LossInputs


class Recommender(nn.Module):
    """Single-device; every embedding row that a step needs is looked up once, in one call of the tables."""

    def __init__(
        self,
        config: EncoderConfig,
        tables: EmbeddingCollection,
        max_history: int,
        num_codes: dict[str, int] | None = None,
        item_content: ItemContent | None = None,
    ) -> None:
        """``num_codes`` of each of ``config.event_features`` by name, 0 for a number; ``item_content`` of
        ``config.item_features``."""
        super().__init__()
        self.user_input = config.user_input
        self.tables = tables
        self.on_look_up: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]] = _as_found
        """Takes ids and the vectors looked up for them, by table, and gives the vectors to go on with; training
        watches over their gradients here."""
        self.encoder: Encoder = build_encoder(config, max_history + (config.user_input is UserInput.FIRST_TOKEN))
        assert self.encoder.is_causal == (config.masking is None), (
            "one that sees the future is trained on hidden events"
        )
        self.embedding_dim, self.knows_users_alone = config.embedding_dim, config.knows_users_alone
        self.label = ""
        """The feature of the events that is predicted, where the loss asks for one."""
        self.event_features: EventFeatures | None = None
        if num_codes:
            self.event_features = EventFeatures(num_codes, config.embedding_dim, config.initial_std)
        self.item_content = item_content

    def forward(self, batch: SequenceBatch, candidates: Tensor, is_training: bool = True) -> LossInputs:
        """Queries after every event but the last of each history, which are the targets shifted by one.

        Where the batch says which events are hidden, these are the targets, and queries are in their places. With
        ``is_training`` false a query after the last event of each history is returned, ``[B, D]``, and the targets
        are empty. ``candidates``: item ids ``[C]`` whose vectors come along. A user -1, whom the table does not know,
        has a vector of zeros; there is none in training.
        """
        event, candidate, user = self.look_up(batch, candidates)
        if not is_training:
            query = self.last_queries(batch, event, user)
            offset = None
            if self.label and user is not None:  # a user whom the table does not know has a row of zeros
                offset = self._offset(user * (batch.user >= 0)[:, None], torch.arange(len(user), device=user.device))
            return LossInputs(query, batch.item[:0], event[:0], candidate, offset)
        return self.predictions(batch, event, candidate, user)

    def predictions(self, batch: SequenceBatch, event: Tensor, candidate: Tensor, user: Tensor | None) -> LossInputs:
        """The queries and targets of :meth:`forward` in training, of what :meth:`look_up` gave: not collective."""
        assert self.encoder.is_causal == (batch.is_hidden is None), "an encoder that sees all would see its targets"
        if batch.is_hidden is not None:
            return self._of_hidden(batch, batch.is_hidden, event, user, candidate)
        owner = batch.owner
        end = torch.cumsum(batch.lengths, 0) - 1
        is_input = torch.ones_like(batch.item, dtype=torch.bool)
        is_input[end[batch.lengths > 0]] = False  # these two lines and `unique` wait for a GPU
        input_index = is_input.nonzero().squeeze(1)
        lengths = (batch.lengths - 1).clamp(min=0)
        inputs = event.index_select(0, input_index)  # indexing with [] takes five times as long on a CPU
        inputs = self._with_features(inputs, batch, input_index)
        tokens, token_lengths, place = self._tokens(inputs, lengths, user, owner[input_index])
        layout = self.encoder.layout_of(token_lengths, len(tokens))
        query = self.encoder(tokens, layout, self._times_of_inputs(batch, input_index, lengths, place))
        query = query if place is None else query[place]
        target_vector = event.index_select(0, input_index + 1)
        return LossInputs(query, batch.item[input_index + 1], target_vector, candidate)

    def table_rows(self, items: Tensor, users: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors of ``items`` ``[N, D]``, with their content, and rows ``[M, D]`` of the user table where there is
        one. Collective."""
        no_events = SequenceBatch(items[:0], torch.zeros_like(users), users, items[:0])
        _, item_vectors, user_vectors = self.look_up(no_events, items)
        return item_vectors, user_vectors

    def last_queries(self, batch: SequenceBatch, event: Tensor, user: Tensor | None) -> Tensor:
        """The query ``[B, D]`` after the last event of each history, of what :meth:`look_up` gave: not collective."""
        user = None if user is None else user * (batch.user >= 0)[:, None]
        tokens, layout, place = self._whole(batch, event, user)
        return self.encoder.last(tokens, layout, self._times_of_events(batch, place))

    def look_up(self, batch: SequenceBatch, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors of the events, the candidates and the users. Collective over sharded tables.

        Ids are made unique first: TorchRec's own dedup has no CPU kernel, and the table's backward costs by the id.
        Here content comes in, so that an item's vector is the same whatever it is looked up for.
        """
        unique, inverse = torch.unique(torch.cat([batch.item, candidates]), return_inverse=True)
        features = {"item": unique}
        if self.user_input is not UserInput.NONE:
            features["user"] = batch.user.clamp(min=0)
        found = self.tables(to_keyed_jagged(features, one_id_per_row=unique.device.type != "cpu"))
        vectors = self.on_look_up(features, {name: found[name].values() for name in features})
        item = vectors["item"]
        if self.item_content is not None:  # after `on_look_up`, so that its weights have gradients before the tables
            item = item + self.item_content(unique)
        event, candidate = item.index_select(0, inverse).split([len(batch.item), len(candidates)])
        return event, candidate, vectors.get("user")

    def _of_hidden(
        self, batch: SequenceBatch, is_hidden: Tensor, event: Tensor, user: Tensor | None, candidate: Tensor
    ) -> LossInputs:
        """Queries in the places of hidden events, of which the encoder sees nothing, and those events as targets."""
        index = is_hidden.nonzero().squeeze(1)  # waits for a GPU
        owner = batch.owner
        tokens, layout, place = self._whole(batch, event, user)
        query = cast(MaskedEncoder, self.encoder)(tokens, layout, index if place is None else place[index])
        offset = self._offset(user, owner[index])
        if offset is not None:  # a softmax leaves it out, and DDP waits for a gradient of each weight: zeros
            query = query + 0 * offset[:, None]
        label = batch.features[self.label][index] if self.label else None
        return LossInputs(query, batch.item[index], event.index_select(0, index), candidate, offset, label)

    def _offset(self, user: Tensor | None, owner: Tensor) -> Tensor | None:
        """What the model adds to every score of ``owner`` ``[N]``, the places of users: None for most models."""
        if not self.knows_users_alone or user is None:
            return None
        return cast(UserEncoder, self.encoder).offset(user.index_select(0, owner))

    def _whole(
        self, batch: SequenceBatch, event: Tensor, user: Tensor | None
    ) -> tuple[Tensor, Layout, Tensor | None]:
        """What the encoder reads of all events, its layout, and where the events lie in it, as :meth:`_tokens`."""
        events = self._with_features(event, batch, None)
        tokens, lengths, place = self._tokens(events, batch.lengths, user, batch.owner)
        return tokens, self.encoder.layout_of(lengths, len(tokens)), place

    def _with_features(self, inputs: Tensor, batch: SequenceBatch, index: Tensor | None) -> Tensor:
        """``inputs`` with what is known of their events, which lie at ``index`` of the batch; targets are left alone.

        A batch that asks for candidates alone has no events, and no features.
        """
        if self.event_features is None or not (batch.features or batch.num_tokens):
            return inputs
        return self.event_features(inputs, batch.features, index)

    def _tokens(
        self, event: Tensor, lengths: Tensor, user: Tensor | None, owner: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the encoder reads, its lengths, and where the events lie in it (None: it reads the events alone)."""
        if user is None:
            return event, lengths, None
        if self.user_input is UserInput.ADD:
            return event + user[owner], lengths, None
        place = torch.arange(len(owner), device=owner.device) + owner + 1
        first = torch.cumsum(lengths + 1, 0) - lengths - 1
        tokens = torch.zeros(len(event) + len(user), event.shape[1], device=event.device, dtype=event.dtype)
        return tokens.index_copy(0, place, event).index_copy(0, first, user), lengths + 1, place

    def _times_of_inputs(
        self, batch: SequenceBatch, index: Tensor, lengths: Tensor, place: Tensor | None
    ) -> Times | None:
        """Times of the events at ``index`` of the batch, which are those of ``lengths``; the next ones are known."""
        if not self.encoder.reads_time:
            return None
        return times_of_tokens(batch.timestamp[index], batch.timestamp[index + 1], lengths, place)

    def _times_of_events(self, batch: SequenceBatch, place: Tensor | None) -> Times | None:
        """Times of all events; what comes after the last one of a history is asked when the batch says."""
        if not self.encoder.reads_time:
            return None
        end = torch.cumsum(batch.lengths, 0) - 1
        last = batch.timestamp[end] if batch.asked_at is None else batch.asked_at
        asked = batch.timestamp.roll(-1).index_copy(0, end, last)
        return times_of_tokens(batch.timestamp, asked, batch.lengths, place)


def _as_found(_: dict[str, Tensor], vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    return vectors


def times_of_tokens(event: Tensor, asked: Tensor, lengths: Tensor, place: Tensor | None) -> Times:
    """Times of events ``[T]`` as the encoder's tokens have them: with ``place`` each history has one token more, the
    first, of the time of its oldest event."""
    if place is None:
        return Times(event, asked)
    start = torch.cumsum(lengths, 0) - lengths
    first = start + torch.arange(len(lengths), device=lengths.device)
    oldest = torch.nn.functional.pad(event, (0, 1))[start]  # of a history without events nobody asks
    times = event.new_zeros(len(event) + len(lengths)).index_copy(0, first, oldest)
    return Times(times.index_copy(0, place, event), times.index_copy(0, place, asked))


def to_keyed_jagged(features: dict[str, Tensor], *, one_id_per_row: bool) -> KeyedJaggedTensor:
    """The ids of each feature as jagged rows: the tables do not need to know which history an id belongs to.

    One row a feature costs least on a CPU. On a GPU a warp looks up a row, id by id, so there each id is a row; a
    batch without ids keeps one, since kernels are not launched over none.
    """
    values = list(features.values())
    device, sizes = values[0].device, [len(value) for value in values]
    if one_id_per_row:
        row = torch.arange(max(1, *sizes), device=device)
        lengths = torch.cat([row < size for size in sizes]).long()
    else:
        lengths = torch.tensor(sizes, dtype=torch.int64, device=device)
    return KeyedJaggedTensor(keys=list(features), values=torch.cat(values), lengths=lengths)
