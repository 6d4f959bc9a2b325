"""A sweep reads its values as ``train`` reads one."""

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.sweeps import swept


@pytest.mark.parametrize(
    "text",
    [
        "logs/dt=2024-01-01/part-[0-9].parquet",
        "a;b",
        "part-[0,1].parquet",
        "{a,b}.parquet",
        "events (old, new)/a",
        "'a,b'",
        r"a\,b",
        " a",
        "",
        "local[2]",
        "http://a:1/b?c=d&e",
    ],
)
def test_one_value_is_read_as_train_reads_it(text: str) -> None:
    runs = swept([f"data.log={text}"])
    assert [load_config(run).data.log for run in runs] == [load_config([f"data.log={text}"]).data.log]


def test_every_combination_is_a_run() -> None:
    runs = swept(["data.log=dt=2024-01-01/[a].csv,dt=2024-01-02/b.csv", "seed=1,2", "loss=bce,gbce", "num_epochs=3"])
    configs = [load_config(run) for run in runs]
    assert len(runs) == 8
    assert {config.data.log for config in configs} == {"dt=2024-01-01/[a].csv", "dt=2024-01-02/b.csv"}
    assert {config.seed for config in configs} == {1, 2}


def test_functions_of_hydra_are_values_too() -> None:
    assert swept(["seed=range(3)"]) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert swept(["run_dir=choice(a,b)"]) == [["run_dir=a"], ["run_dir=b"]]


def test_a_list_is_one_value_and_several_lists_are_several() -> None:
    assert len(swept(["data.event_types=[a,b]"])) == 1
    assert [
        load_config([*run, "data.columns.event_type=k"]).data.event_types
        for run in swept(["data.event_types=[a],[b]"])
    ] == [
        ["a"],
        ["b"],
    ]


@pytest.mark.parametrize("override", ["sed=1,2", "seed=1,(", "+seed=1,2", "seed=range("])
def test_what_cannot_be_read_is_refused_by_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match="se"):
        [load_config(run) for run in swept([override])]
