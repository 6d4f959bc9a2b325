"""A run is composed as written, and a wrong key is named."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config, resolved_yaml
from configs.schema import (
    BCEConfig,
    FullSoftmaxConfig,
    GBCEConfig,
    LossConfig,
    Precision,
    SampledSoftmaxConfig,
    UserInput,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXPERIMENTS = sorted(
    file.stem for file in (Path(__file__).resolve().parents[2] / "configs" / "experiment").glob("*.yaml")
)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.num_haeds=3", "model.num_haeds"),
        ("+model.num_haeds=3", "model.num_haeds"),
        ("~model.num_heads", "model.num_heads"),
        ("data.colums.user=u", "data.colums"),
        ("nmu_steps=3", "nmu_steps"),
        ("loss.num_negatives=3", "loss.num_negatives"),
        ("loss=sofmax", "loss/sofmax"),
        ("experiment=smok", "experiment/smok"),
        ("num_steps", "num_steps"),
    ],
)
def test_a_typo_is_refused_and_named(override: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([override])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.num_heads=two", "model.num_heads"),
        ("model.num_heads=1.5", "model.num_heads"),
        ("model.dropout=", "model.dropout"),
        ("data.deduplicate=maybe", "data.deduplicate"),
        ("model.user_input=both", "model.user_input"),
        ("num_steps=1,2", "num_steps"),
    ],
)
def test_a_wrong_type_is_refused_and_named(override: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([override])
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.num_heads=3"], "model.num_heads=3"),
        (["hardware.num_ranks=9"], "data.num_lanes=8"),
        (["data.global_batch_size=100"], "data.global_batch_size=100"),
        (["data.global_time_valid_fraction=0.95"], "data.global_time_valid_fraction=0.95"),
        (["loss=gbce", "loss.calibration=2"], "loss.calibration=2"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_the_keys_as_typed(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(overrides)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("full_softmax", FullSoftmaxConfig),
        ("sampled_softmax", SampledSoftmaxConfig),
        ("bce", BCEConfig),
        ("gbce", GBCEConfig),
    ],
)
def test_a_loss_is_the_variant_of_its_name(name: str, variant: type[LossConfig]) -> None:
    assert type(load_config([f"loss={name}"]).loss) is variant


def test_a_choice_is_typed_as_it_is_printed() -> None:
    config = load_config(["model.user_input=first_token"])
    assert config.model.user_input is UserInput.FIRST_TOKEN
    assert "user_input: first_token" in resolved_yaml(config)
    assert load_config(["loss.precision=bf16"]).loss == FullSoftmaxConfig(precision=Precision.BF16)


def test_an_override_wins_over_the_experiment() -> None:
    plain = load_config(["experiment=smoke"])
    config = load_config(["num_epochs=3", "experiment=smoke", "model.embedding_dim=16"])
    assert (plain.num_epochs, plain.model.embedding_dim) != (3, 16)
    assert (config.num_epochs, config.model.embedding_dim) == (3, 16)
    assert config.data == plain.data


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_what_its_golden_copy_says(experiment: str) -> None:
    """After a meant change: ``shardrec config experiment=NAME > tests/golden/NAME.yaml``."""
    assert resolved_yaml(load_config([f"experiment={experiment}"])) == (GOLDEN / f"{experiment}.yaml").read_text()
