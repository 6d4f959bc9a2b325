"""One meaning of a path, for every key that takes one."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.paths import checked_folder, checked_path

KEYS = ["run_dir", "scratch_dir", "data.log", "data.store", "data.spill_dir"]


def value_of(key: str, typed: str) -> str:
    config = load_config([f"{key}={typed}"])
    return str(getattr(config.data, key.removeprefix("data.")) if key.startswith("data.") else getattr(config, key))


@pytest.mark.parametrize("key", KEYS)
def test_a_path_means_the_same_for_every_key(key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    typed = {"~/a": f"{tmp_path}/a", "a//b/./c/": "a/b/c", "a/../b": "a/../b", "file:///a%20b": "/a b", "./~": "~"}
    for text, meant in typed.items():
        assert value_of(key, text) == meant


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("typed", [" ", "a\nb", "~nobody-of-this-name/x", "x" * 300, "/".join(["x" * 200] * 30)])
def test_what_no_file_system_takes_is_refused_by_its_key(key: str, typed: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}=") as caught:
        load_config([f"{key}={typed}"])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["run_dir", "data.store", "data.spill_dir"])
@pytest.mark.parametrize("typed", ["/", "//", "/tmp/..", "file:///"])
def test_the_root_of_the_file_system_is_refused_by_its_key(key: str, typed: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}=.* is the root"):
        load_config([f"{key}={typed}"])


def test_an_empty_path_is_the_default_or_refused() -> None:
    assert [value_of(key, "") for key in KEYS[1:]] == [""] * 4
    with pytest.raises(ConfigError, match="run_dir is empty"):
        load_config(["run_dir="])


def test_a_run_in_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"run_dir={tmp_path} is a store"):
        load_config([f"run_dir={tmp_path}"])


def test_a_url_stays_as_it_is() -> None:
    for text in ("s3://bucket//a/", "gs://b/~"):
        assert checked_path("data.log", text) == checked_folder("data.log", text) == text


def test_a_name_that_is_no_utf8_keeps_its_bytes() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(ConfigError, match=r"run_dir='caf\\udce9' is no UTF-8"):
        load_config([f"run_dir={name}"])
    assert load_config([f"data.log={name}/a"]).data.log.encode("utf-8", "surrogateescape") == b"caf\xe9/a"


def test_links_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert checked_path("data.store", f"{tmp_path}/link") == f"{tmp_path}/link"
