"""``${...}`` in a value is what Hydra makes of it, once for all processes of a run."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.load import load_config, load_pinned
from configs.overrides import as_typed


def test_a_text_takes_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/big/disk")
    assert load_config(["run_dir=${oc.env:SCRATCH}/x"]).run_dir == "/big/disk/x"
    assert load_config(["run_dir='${oc.env:SCRATCH}/x'"]).run_dir == "/big/disk/x"
    assert load_config(
        ["data.event_types=['${oc.env:SCRATCH}']", "data.columns.event_type=kind"]
    ).data.event_types == ["/big/disk"]


def test_a_key_takes_what_another_has() -> None:
    config = load_config(["run_dir=runs/${seed}-${optimizer.lr}", "seed=7", "num_epochs=${seed}", "optimizer.lr=0.5"])
    assert (config.run_dir, config.num_epochs) == ("runs/7-0.5", 7)


def test_a_feature_takes_what_another_key_has() -> None:
    assert load_config(["data.features.kind.column=${data.columns.item}"]).data.features["kind"].column == "item_id"


@pytest.mark.parametrize("typed", [r"runs/\${seed}", r"'runs/\${seed}'"])
def test_a_backslash_keeps_it_as_it_is(typed: str) -> None:
    assert load_config([f"run_dir={typed}"]).run_dir == "runs/${seed}"


@pytest.mark.parametrize(
    "override",
    [
        "run_dir=${oc.env:NO_SUCH_VARIABLE}/x",
        "run_dir=${no_such_key}",
        "run_dir=${a",
        "num_epochs=${run_dir}",
        "num_epochs=${num_epochs}",
        "run_dir=${no_such_resolver:1}",
        "data.features=${seed}",
        "data.columns=${seed}",
        "model.user_input=${seed}",
    ],
)
def test_what_cannot_be_resolved_is_refused_by_its_key(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([override])
    assert override.partition("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_in_a_circle_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_epochs"):
        load_config(["num_epochs=${num_steps}", "num_steps=${num_epochs}"])


def test_every_process_of_a_run_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/a")
    config, words = load_pinned(["seed=3", "run_dir=${oc.env:SCRATCH}/${now:%f}", "num_epochs=${seed}"])
    monkeypatch.setenv("SCRATCH", "/b")
    assert load_config(words) == config
    assert not any("$" in word for word in words)


def test_a_file_of_ones_own_is_resolved_once_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nrun_dir: ${oc.env:SCRATCH}/x\n")
    monkeypatch.setenv("SCRATCH", "/a")
    config, words = load_pinned([f"config_dir={tmp_path}", "experiment=mine"])
    monkeypatch.setenv("SCRATCH", "/b")
    assert load_config(words).run_dir == config.run_dir == "/a/x"


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_that_is_typed_for_a_process_is_read_as_itself(text: str) -> None:
    assert load_config([f"data.features.kind.fill={as_typed(text)}"]).data.features["kind"].fill == text


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3, unique=True))
def test_a_list_that_is_typed_for_a_process_is_read_as_itself(texts: list[str]) -> None:
    assert load_config([f"data.source.header={as_typed(texts)}"]).data.source.header == texts
