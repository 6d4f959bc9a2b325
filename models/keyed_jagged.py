"""A batch as TorchRec reads it."""

from torchrec import KeyedJaggedTensor

from data_pipeline.batch import SequenceBatch


def to_kjt(batch: SequenceBatch) -> KeyedJaggedTensor:
    """The histories of ``batch`` under the key ``item``; nothing is copied.

    Our own models look unique ids up instead (``models.recommender``): a table's backward costs by the id.
    """
    return KeyedJaggedTensor(keys=["item"], values=batch.item, lengths=batch.lengths)
