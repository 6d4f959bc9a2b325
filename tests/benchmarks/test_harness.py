"""A record says of which commit it is."""

import pytest

from benchmarks.harness import commit, record_name
from configs.schema import HardwareConfig


def test_a_copy_without_its_history_is_of_the_commit_that_it_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHARDREC_COMMIT", "0123abcd")
    assert commit() == {"id": "0123abcd", "is_clean": None}


def test_a_record_of_a_gpu_does_not_replace_that_of_the_cpu():
    assert record_name("step", HardwareConfig()) == "step"
    assert record_name("step", HardwareConfig(name="h100", device="cuda")) == "step_h100"
