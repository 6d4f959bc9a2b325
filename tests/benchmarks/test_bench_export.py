"""What `bench export` refuses: keys that it sets itself."""

import pytest

from benchmarks import bench_export
from configs.errors import ConfigError


@pytest.mark.parametrize("word", ["export.output=folder", "export.dtype=int8"])
def test_keys_that_the_benchmark_sets_itself_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        bench_export.main(["run_dir=nowhere", word])
