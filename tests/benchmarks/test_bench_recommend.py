"""What `bench recommend` reads of the command that it starts."""

import pytest

from benchmarks import bench_recommend
from benchmarks.bench_recommend import rate_in
from configs.errors import ConfigError


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        ("a note\nout.parquet: 6,040 users; 6,040 in 1.2 s (5,033 users/s)\n", 5033),
        ("r.csv: 6,040 users, the first 40 by an earlier start; 6,000 in 9.0 s (667 users/s)\n", 667),
        ("out.parquet: 80 items; 80 in 0.1 s (800 items/s)\n", 800),
        ("1,000 users/s would be nice\n", None),
    ],
)
def test_the_rate_is_the_one_that_the_command_prints(told: str, rate: float | None) -> None:
    assert rate_in(told) == rate


@pytest.mark.parametrize("word", ["recommend.output=x.csv", "hardware.num_ranks=4", "hardware.num_threads=1"])
def test_keys_that_the_benchmark_sets_itself_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        bench_recommend.main(["run_dir=nowhere", word])
