"""A seed that NumPy would refuse is refused by its key, before anything starts."""

import pytest

from configs.errors import ConfigError
from configs.load import load_config


@pytest.mark.parametrize("key", ["seed", "data.synthetic.seed"])
def test_a_negative_seed_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}=-1 must not be negative"):
        load_config([f"{key}=-1"])
