"""What is left to the machine is what it has, within the limits of a container."""

from pathlib import Path

import pytest

from configs import machine
from configs.errors import ConfigError
from configs.load import left_to_the_machine, load_config, load_pinned
from configs.memory import check_memory


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    monkeypatch.setattr(machine, "available_memory_gib", lambda: (16.0, 12.0))
    monkeypatch.setattr(machine, "num_gpus", lambda: 0)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("typed", "ranks", "threads"),
    [
        ([], 8, 1),
        (["hardware.num_ranks=auto", "hardware.num_threads=auto"], 8, 1),
        (["hardware.num_ranks=2"], 2, 4),
        (["hardware.num_ranks=1"], 1, 8),
        (["hardware.num_threads=3"], 8, 3),
        (["experiment=smoke"], 2, 4),
    ],
)
def test_ranks_and_threads_fill_the_cores(typed: list[str], ranks: int, threads: int) -> None:
    hardware = load_config(typed).hardware
    assert (hardware.num_ranks, hardware.num_threads, hardware.device) == (ranks, threads, "cpu")


@pytest.mark.usefixtures("eight_cores")
def test_every_process_of_a_run_gets_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    config, words = load_pinned(["seed=3"], machine=True)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    monkeypatch.setattr(machine, "available_memory_gib", lambda: (1.0, 1.0))
    assert load_config(words) == config
    assert left_to_the_machine(words) == []
    assert left_to_the_machine(["hardware.num_ranks=2"]) == [
        "hardware.device",
        "hardware.num_threads",
        "data.memory_gib",
    ]


def test_limits_of_both_kinds_of_cgroups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.limit_in_bytes").write_text(f"{2**28}\n")
    (tmp_path / "memory.usage_in_bytes").write_text(f"{2**27}\n")
    (tmp_path / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(machine, "_cgroups", lambda controller: [tmp_path])
    assert machine.available_memory_gib() == (0.25, 0.125)
    assert machine.usable_cores() == 1


def test_no_limit_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = machine.available_memory_gib()[0], machine.usable_cores()
    for name, text in {
        "memory.limit_in_bytes": f"{2**63 - 4096}",
        "memory.usage_in_bytes": "1",
        "cpu.cfs_quota_us": "-1",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_cgroups", lambda controller: [tmp_path])
    assert machine.available_memory_gib()[0] >= free[0]
    assert machine.usable_cores() >= free[1]


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (["loss=sampled_softmax", "loss.num_negatives=1000000000"], "loss.num_negatives=1000000000"),
        (["data.prefetch_mib=10000000"], "data.prefetch_mib=10000000"),
        (["hardware.num_ranks=20000", "data.global_batch_size=20000"], "hardware.num_ranks=20000"),
        (["model.embedding_dim=65536", "model.num_blocks=500"], "model.num_blocks=500"),
        (["data.global_batch_tokens=1000000000"], "data.global_batch_tokens=1000000000"),
        (["data.prefetch_batches=10000", "data.global_batch_size=1000000"], "data.prefetch_batches=10000"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_bytes(typed: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} takes at least .* bytes") as caught:
        check_memory(load_config(typed))
    assert "this machine has" in str(caught.value)


def test_tables_that_do_not_fit_are_refused_with_their_bytes() -> None:
    config = load_config(["optimizer=adam"])
    check_memory(config, num_items=1000)
    with pytest.raises(ConfigError, match=r"^model.embedding_dim=64 takes at least .*76,800,000,000,000 bytes"):
        check_memory(config, num_items=10**11)
