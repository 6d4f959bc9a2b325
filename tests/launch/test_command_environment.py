"""What a person's environment may hold when a command starts its modules."""

import pytest

from configs.errors import ConfigError
from launch.command import run_module


@pytest.mark.parametrize("threads", ["0", "-1", "abc", ""])
def test_a_number_of_polars_threads_that_is_none_is_refused_before_anything_is_read(
    threads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", threads)
    with pytest.raises(ConfigError, match=rf"POLARS_MAX_THREADS={threads} must be a whole number"):
        run_module("data_pipeline.prepare", [])
    assert capsys.readouterr() == ("", "")
