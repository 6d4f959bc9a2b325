"""A run is composed as written, and a wrong key is named."""

from pathlib import Path

import pytest
import yaml

from configs.errors import ConfigError
from configs.load import load_cluster, load_config, resolved_yaml
from configs.schema import (
    BCEConfig,
    FullSoftmaxConfig,
    GBCEConfig,
    LossConfig,
    Precision,
    SampledSoftmaxConfig,
    UserInput,
)
from configs.schema.cluster import SlurmConfig

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GOLDEN_MACHINE = ["hardware.device=cpu", "hardware.num_ranks=2", "hardware.num_threads=1", "data.memory_gib=2"]
"""What the golden copies say of the machine."""
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


TEXTS = [
    "events/part-[0-9].parquet",
    "logs/day=1/*.parquet",
    "events (old)/a.parquet",
    "{a}.parquet",
    "local[2]",
    ";",
    ",",
    "a,b",
    "choice(a,b)",
    " ",
    "\t",
    "#",
    "é",
    "null",
    "true",
    "007",
    "1e3",
    "'",
    '"',
    "it's",
    'it\'s "here"',
    "'a' and 'b",
    "\\",
    "a\\'b",
    "ends with \\",
    "$HOME",
    "{seed}",
    "s3://bucket/a b",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_is_typed(text: str) -> None:
    config = load_config([f"data.columns.event_type={text}", f"data.features.kind.fill={text}"])
    assert (config.data.columns.event_type, config.data.features["kind"].fill) == (text, text)
    assert yaml.safe_load(resolved_yaml(config))["data"]["columns"]["event_type"] == text


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("'events (old)/a.parquet'", "events (old)/a.parquet"),
        ('"[a]"', "[a]"),
        ("''", ""),
        ('""', ""),
        ("' '", " "),
        (r"'it\'s'", "it's"),
        (r'"\"\\"', '"\\'),
        ("""'"'""", '"'),
    ],
)
def test_a_quoted_text_is_what_stands_inside(typed: str, text: str) -> None:
    config = load_config([f"data.columns.event_type={typed}", f"data.features.kind.column={typed}"])
    assert (config.data.columns.event_type, config.data.features["kind"].column) == (text, text)


@pytest.mark.parametrize(
    ("typed", "text"),
    [(r"s3\://bucket/a\ b", "s3://bucket/a b"), (r"a\,b", "a,b"), (r"\[0\]", "[0]"), (r"a\b", r"a\b")],
)
def test_a_text_as_a_sweep_writes_it_is_what_was_swept(typed: str, text: str) -> None:
    assert load_config([f"data.log={typed}"]).data.log == text


def test_a_text_of_the_cluster_is_taken_as_it_is_typed() -> None:
    words = ["cluster=slurm", "cluster.constraint=[a|b]&(c)", "cluster.gpus_per_node=8", "cluster.modules=[a,b]"]
    cluster = load_cluster(words)
    assert isinstance(cluster, SlurmConfig)
    assert (cluster.constraint, cluster.gpus_per_node, cluster.modules) == ("[a|b]&(c)", "8", ["a", "b"])
    pods = ["cluster=kubernetes", "cluster.image=a", "cluster.volume_claim=b", "cluster.gpus_per_node=8"]
    assert "gpus_per_node=8," in str(load_cluster(pods))


def test_a_list_is_typed_in_brackets() -> None:
    config = load_config(["data.columns.event_type=kind", "data.event_types=[a,'b c']"])
    assert config.data.event_types == ["a", "b c"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("num_steps=1,2", "num_steps=1,2: not one value; num_steps takes one plain value"),
        ("seed=range(3)", "seed=range(3): not one value; seed takes one plain value"),
        ("loss=bce,gbce", "loss=bce,gbce: loss takes one name, such as full_softmax"),
        ("experiment=a(", "experiment=a(: experiment takes one name"),
        ("data.memory_gib=[2", "data.memory_gib=[2: cannot be read; data.memory_gib takes one plain value"),
        ("data.features.x.max_values={", "data.features.x.max_values={: cannot be read; data.features.x.max_values"),
        ("data.event_types=a,b", "data.event_types=a,b: not one value; write a list as data.event_types=['a','b']"),
        ("data.event_types=[a(b]", "data.event_types=[a(b]: cannot be read; write a list as data.event_types=["),
        ("num_epochs=ten", "num_epochs=ten: num_epochs takes a whole number"),
        ("num_epochs=1.0", "num_epochs=1.0: num_epochs takes a whole number"),
        ("num_epochs=null", "num_epochs=null: num_epochs takes a whole number"),
        ("num_epochs=", "num_epochs=: num_epochs takes a whole number"),
        ("num_epochs=true", "num_epochs=true: num_epochs takes a whole number"),
        ("optimizer.lr=fast", "optimizer.lr=fast: optimizer.lr takes a number"),
        ("data.deduplicate=maybe", "data.deduplicate=maybe: data.deduplicate takes true or false"),
        ("data.event_types=buy", "data.event_types=buy: data.event_types takes a list such as [a,b]"),
        ("data.columns=buy", "data.columns=buy: data.columns takes a group: set the keys below it"),
        ("loss=[]", "loss=[]: loss takes one name, such as full_softmax"),
        ("loss=null", "loss=null: loss takes one name"),
        ("num_steps", "num_steps: write KEY=VALUE"),
        ("=3", "=3: write KEY=VALUE"),
    ],
)
def test_what_cannot_be_read_is_told_as_it_was_typed(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["seed=1", override, "num_epochs=3"])
    assert str(caught.value).startswith(told)
    assert "multirun" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("data.foo=1", "shardrec config"),
        ("data.source.foo=a(b", "shardrec config"),
        ("seed.foo=1", "shardrec config"),
        ("data.columns.usr=u", "did you mean data.columns.user?"),
        ("data.features.kind.colunm=a", "did you mean data.features.kind.column?"),
        ("modle=sasrec", "did you mean model?"),
        ("loss.num_negatives=3", "another loss=NAME has it"),
        ("prepare.memory_gib=3", "data.memory_gib"),
        ("prepare.engine=spark", "data.engine"),
        ("batch.tokens=1,2", "data.global_batch_tokens"),
        ("cluster.nodes=2", "shardrec launch"),
    ],
)
def test_an_unknown_key_is_told_as_it_was_typed_with_where_to_look(override: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([override])
    assert str(caught.value).startswith(f"unknown key {override.partition('=')[0]}; ")
    assert hint in str(caught.value)
    assert "Config'" not in str(caught.value)
    assert "full_key" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("cluster.partion=x", "did you mean cluster.partition?"),
        ("cluster.partition=x", "another cluster=NAME has it"),
    ],
)
def test_an_unknown_key_of_the_cluster_is_told_too(override: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"^unknown key {override[:-2]}; ") as caught:
        load_cluster([override])
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.num_heads=3"], "model.num_heads=3"),
        (["hardware.num_ranks=129"], "data.global_batch_size=128"),
        (["data.global_batch_size=100", "data.num_data_shards=8"], "data.global_batch_size=96 or 104"),
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
    """After a meant change: ``shardrec config experiment=NAME hardware.device=cpu ... > tests/golden/NAME.yaml``."""
    assert (
        resolved_yaml(load_config([f"experiment={experiment}", *GOLDEN_MACHINE]))
        == (GOLDEN / f"{experiment}.yaml").read_text()
    )
