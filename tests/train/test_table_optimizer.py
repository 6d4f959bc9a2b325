"""What fbgemm is asked to do with the tables of a GPU."""

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torchrec.distributed.utils import optimizer_type_to_emb_opt_type

from configs.load import load_config
from models.recommender import Recommender
from models.tables import build_tables
from train.optimizer import fuse_table_optimizer

FUSED = {
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "sgd": EmbOptimType.EXACT_SGD,
    "adam": EmbOptimType.ADAM,
}


@pytest.mark.parametrize("optimizer", list(FUSED))
def test_every_table_optimizer_is_fused_under_names_that_fbgemm_knows(optimizer: str):
    config = load_config(["hardware=h100", f"optimizer.table={optimizer}", "optimizer.table_lr=0.25"])
    with torch.device("meta"):
        model = Recommender(config.model, build_tables(10, 0, config.model.embedding_dim), max_history=5)
    fuse_table_optimizer(model, config)
    for table in model.tables.parameters():
        (kind,), (arguments,) = table._optimizer_classes, table._optimizer_kwargs
        assert optimizer_type_to_emb_opt_type(kind) is FUSED[optimizer]
        assert arguments["lr"] == 0.25
        assert "betas" not in arguments
        if optimizer == "adam":
            assert (arguments["beta1"], arguments["beta2"]) == (config.optimizer.beta1, config.optimizer.beta2)


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_a_weight_decay_reaches_fbgemm_with_the_mode_without_which_it_is_ignored(optimizer: str):
    config = load_config(
        ["hardware=h100", f"optimizer.table={optimizer}", "optimizer.table_weight_decay=0.5", "sharding=row_wise"]
    )
    with torch.device("meta"):
        model = Recommender(config.model, build_tables(10, 0, config.model.embedding_dim), max_history=5)
    fuse_table_optimizer(model, config)
    for table in model.tables.parameters():
        (arguments,) = table._optimizer_kwargs
        assert arguments["weight_decay"] == 0.5
        mode = WeightDecayMode.DECOUPLE if optimizer == "rowwise_adagrad" else None  # fbgemm's Adam has no other
        assert arguments.get("weight_decay_mode") is mode
