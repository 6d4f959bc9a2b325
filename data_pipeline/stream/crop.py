"""Augmentation of training sequences: each is a random part of itself, another one in every epoch.

The crop of CL4SRec (Xie et al., ICDE 2022), as the input of the ordinary loss.
"""

import numpy as np

from data_pipeline.stream.jagged import jagged_index, offsets_of
from data_pipeline.stream.order import random_words
from data_pipeline.stream.sequences import MIN_TRAIN_EVENTS
from data_pipeline.stream.shuffle_window import TrainHistories


def cropped(histories: TrainHistories, fraction: float, key: tuple[object, ...]) -> TrainHistories:
    """``fraction`` of the events of every sequence, rounded up and side by side; no fewer than can be learnt from.

    Where a part begins hangs on ``key`` and the sequence's place in ``histories``.
    """
    lengths = histories.lengths
    kept = np.maximum(np.ceil(lengths * fraction), np.minimum(lengths, MIN_TRAIN_EVENTS)).astype(np.int64)
    word = random_words((*key, "crop"), len(lengths)) >> np.uint64(32)
    num_places = (lengths - kept + 1).astype(np.uint64)
    first = ((word * num_places) >> np.uint64(32)).astype(np.int64)
    events = jagged_index(offsets_of(lengths)[:-1] + first, kept)
    features = {name: values[events] for name, values in histories.features.items()}
    return TrainHistories(histories.user, kept, histories.item[events], histories.timestamp[events], features)
