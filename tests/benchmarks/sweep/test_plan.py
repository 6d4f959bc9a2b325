"""A sweep's command line: which runs it asks for, where they go, and what is refused before anything starts."""

from pathlib import Path

import pytest

from benchmarks.sweep.jobs import name_of, plan_of
from benchmarks.sweep.options import SweepOptions, options_of, suitable_workers
from benchmarks.sweep.sweep import sweep
from configs import machine
from configs.errors import ConfigError


def options(folder: Path, *words: str) -> SweepOptions:
    return options_of([*words, f"sweep_dir={folder}"])


def test_every_combination_is_a_run_in_a_folder_that_says_which(tmp_path: Path) -> None:
    jobs = plan_of(options(tmp_path, "loss=bce,gbce", "num_epochs=2", "seed=0,1")).jobs
    assert [job.name for job in jobs] == [f"loss={loss},seed={seed}" for loss in ("bce", "gbce") for seed in (0, 1)]
    assert [Path(job.config.run_dir) for job in jobs] == [tmp_path / job.name for job in jobs]
    assert all(job.config.num_epochs == 2 for job in jobs)
    assert [job.config.seed for job in jobs] == [0, 1, 0, 1]


def test_a_value_that_is_typed_twice_is_one_run(tmp_path: Path) -> None:
    assert len(plan_of(options(tmp_path, "seed=1,1,2")).jobs) == 2
    jobs = plan_of(options(tmp_path, "seed=1,2", "num_epochs=2,3", "num_epochs=4")).jobs
    assert [(job.name, job.config.num_epochs) for job in jobs] == [("seed=1", 4), ("seed=2", 4)]


def test_runs_share_the_cores_where_the_user_has_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)

    def shares(*words: str) -> tuple[int, int, int]:
        plan = plan_of(options(tmp_path, *words))
        hardware = plan.jobs[0].config.hardware
        return plan.workers, hardware.num_ranks, hardware.num_threads

    device = "hardware.device=cpu"
    assert shares("seed=1,2,3", device) == (2, 1, 1)
    assert shares("seed=1,2", "hardware.num_ranks=2", device) == (1, 2, 1)
    assert shares("seed=1,2", "hardware.num_threads=3", "sweep.workers=2", device) == (2, 1, 3)


def test_on_gpus_one_run_at_a_time() -> None:
    assert suitable_workers(64, 1, "cuda") == 1
    assert suitable_workers(64, 1, "cpu") == machine.MAX_RANKS_ON_CPU


def test_no_two_runs_have_one_folder() -> None:
    values = ["a/b", "a b", "a-b", "x" * 300, "x" * 301, "ü", "..", ""]
    names = [name_of({"data.store": value}) for value in values]
    assert len(set(names)) == len(values)
    assert all("/" not in name and len(name) < 120 for name in names)


REFUSED = {
    "no folder": (["seed=1,2"], "sweep needs a folder"),
    "a url": (["seed=1,2", "sweep_dir=s3://a/b"], "is a URL"),
    "a run's folder": (["seed=1,2", "run_dir=a", "sweep_dir=b"], "leave run_dir out"),
    "workers": (["seed=1,2", "sweep.workers=none", "sweep_dir=b"], r"sweep\.workers=none is no number"),
    "an option": (["seed=1,2", "sweep.max=1", "sweep_dir=b"], r"sweep\.max=1 is no option"),
    "a flag": (["seed=1,2", "--multirun", "sweep_dir=b"], "--multirun is no option"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_option_is_named(case: str) -> None:
    words, text = REFUSED[case]
    with pytest.raises(ConfigError, match=text):
        options_of(words)


def test_a_wrong_combination_is_named_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with pytest.raises(ConfigError, match=r"num_heads=3.*\(in the run model\.num_heads=3\)"):
        plan_of(options(folder, "model.num_heads=2,3"))
    assert not folder.exists()


def test_a_run_or_a_store_is_no_place_for_a_sweep(tmp_path: Path) -> None:
    for name, what in (("config.yaml", "a run"), ("manifest.json", "a store")):
        (tmp_path / what).mkdir()
        (tmp_path / what / name).touch()
        with pytest.raises(ConfigError, match=f"is {what}"):
            options(tmp_path / what, "seed=1,2")


def test_one_run_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no key has several values"):
        sweep(options(tmp_path / "s", "seed=1", "--dry-run"))


def test_an_empty_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        sweep(options(tmp_path / "s"))
    with pytest.raises(ConfigError, match="holds no run"):
        sweep(options(tmp_path))


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(options(tmp_path / "s", "seed=1,2", "--dry-run")) == 0
    assert f"{tmp_path}/s/seed=1\n{tmp_path}/s/seed=2\n2 runs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
