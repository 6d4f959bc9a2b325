"""A mend for fbgemm on CPU: its dense kernel ignores ``PoolingMode.NONE`` (pytorch/FBGEMM issue 4586).

Unmended it returns pooled rows, and TorchRec's exchange then reads out of bounds.
"""

import torch
from fbgemm_gpu.split_embedding_configs import SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen
from torch import Tensor


def patch_dense_kernel() -> None:
    """Replace the kernel's forward by a plain lookup where it is wrong; a second call does nothing."""
    kernel = DenseTableBatchedEmbeddingBagsCodegen
    if hasattr(kernel, "unmended_forward"):
        return
    kernel.unmended_forward = kernel.forward
    kernel.forward = _forward


def _forward(
    self: DenseTableBatchedEmbeddingBagsCodegen,
    indices: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None = None,
    feature_requires_grad: Tensor | None = None,
    batch_size_per_feature_per_rank: list[list[int]] | None = None,
) -> Tensor:
    if not (self.use_cpu and self.pooling_mode == PoolingMode.NONE):
        return self.unmended_forward(
            indices, offsets, per_sample_weights, feature_requires_grad, batch_size_per_feature_per_rank
        )
    widths = {width for _, width in self.embedding_specs}
    assert len(widths) == 1, "tables of one group have one width"
    assert batch_size_per_feature_per_rank is None, "variable batch sizes per feature are not used here"
    width, num_features = widths.pop(), self.D_offsets.numel() - 1
    per_feature = (offsets.numel() - 1) // num_features
    bounds = offsets[::per_feature][: num_features + 1] if per_feature else offsets.new_zeros(num_features + 1)
    first_row = torch.repeat_interleave(self.weights_offsets // width, bounds[1:] - bounds[:-1])
    rows = torch.nn.functional.embedding(indices.long() + first_row, self.weights.view(-1, width))
    return rows.to(SparseType.from_int(self.output_dtype).as_dtype())  # the exchange trusts this dtype
