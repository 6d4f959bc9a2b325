"""A run composes again from its ``config.yaml`` alone, whatever chose it and whatever today's defaults are."""

import pytest

from configs.choices import CHOICES
from configs.errors import ConfigError, DataError
from configs.load import load_config, resolved_yaml, variants_of
from configs.saved_run import compose_saved
from configs.schema import SampledSoftmaxConfig

RUNS = {
    "defaults": [],
    "experiment": ["experiment=ml1m_sasrec_sampled"],
    **{f"loss={name}": [f"loss={name}"] for name in CHOICES["loss"]},
    "adam": ["optimizer=adam", "optimizer.table_lr=1e-05"],
    "data": ["data=kuairand", "data.event_types=['it\\'s','a,b','']"],
    "features": ["data.features.price.type=number", "data.features.price.fill=-1", "data.features.kind.column=event"],
    "texts": ["data.log=a=b, [c] {d}: it's", "data.store='quoted'", r"data.spill_dir=back\\slash"],
    "hardware": ["hardware=h100", "sharding=row_wise"],
}


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS.keys())
def test_a_saved_run_is_the_run(overrides: list[str]) -> None:
    config = load_config(overrides)
    saved = compose_saved(resolved_yaml(config), "config.yaml", [f"run_dir={config.run_dir}"])
    assert saved == config
    assert type(saved.loss) is type(config.loss)
    assert resolved_yaml(saved) == resolved_yaml(config)


def test_every_variant_is_recorded_by_the_name_that_chooses_it():
    for name, kind in CHOICES["loss"].items():
        config = load_config([f"loss={name}"])
        assert variants_of(config) == {"model": "sasrec", "loss": name, "optimizer": "default"}
        assert f"loss: {name}\n" in resolved_yaml(config)
        assert type(config.loss) is kind


def test_what_the_file_says_counts_and_no_default():
    text = resolved_yaml(load_config(["loss=sampled_softmax"])).replace("num_negatives: 512", "num_negatives: 7")
    assert compose_saved(text, "config.yaml").loss == SampledSoftmaxConfig(num_negatives=7)


def test_overrides_come_on_top_and_a_group_brings_its_own_values():
    text = resolved_yaml(load_config(["hardware.num_ranks=1", "evaluation.batch_size=7", "run_dir=there"]))
    assert compose_saved(text, "config.yaml", ["run_dir=here"]).run_dir == "here"
    assert compose_saved(text, "config.yaml", ["evaluation.batch_size=9"]).evaluation.batch_size == 9
    changed = compose_saved(text, "config.yaml", ["sharding=row_wise", "loss=bce"])
    assert (changed.sharding.strategy.value, variants_of(changed)["loss"]) == ("row_wise", "bce")
    assert changed.hardware.num_ranks == 1


@pytest.mark.parametrize(
    ("broken", "error", "named"),
    [
        (lambda text: text.replace("num_blocks:", "num_layers:"), ConfigError, "R: unknown key model.num_layers"),
        (lambda text: text.replace("loss: full_softmax", "loss: half_softmax"), ConfigError, "R: .*half_softmax"),
        (lambda text: text.replace("seed: 0", "seed: -1"), ConfigError, "R: .*seed=-1"),
        (lambda text: text.partition("run_dir")[2], DataError, "R "),
        (lambda text: "run_dir: here", DataError, "R does not say of which variants"),
        (lambda text: "[1, 2", DataError, "R cannot be read"),
        (lambda text: "- 1", DataError, "R cannot be read"),
    ],
)
def test_what_this_version_cannot_compose_is_one_line_with_the_file(broken, error, named):
    with pytest.raises(error, match=named):
        compose_saved(broken(resolved_yaml(load_config())), "R")


def test_an_experiment_on_top_of_a_saved_run_is_refused():
    with pytest.raises(ConfigError, match="experiment chooses another run; R says what this one is"):
        compose_saved(resolved_yaml(load_config()), "R", ["experiment=smoke"])
