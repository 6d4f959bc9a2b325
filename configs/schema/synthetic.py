"""The choices of a made-up log."""

from dataclasses import dataclass

from configs.errors import require


@dataclass(kw_only=True, slots=True)
class SyntheticConfig:
    """The log that ``experiment=smoke`` makes when ``data.log`` does not exist."""

    num_users: int = 0
    num_items: int = 0
    mean_length: int = 20
    zipf_exponent: float = 1.0
    num_tastes: int = 8
    transition_probability: float = 0.6
    dirty_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_users", "num_items", "mean_length", "seed"):
            require(getattr(self, name) >= 0, f"data.synthetic.{name}={getattr(self, name)} must not be negative")
        require(
            0 <= self.transition_probability <= 1,
            f"data.synthetic.transition_probability={self.transition_probability} must lie in [0, 1]",
        )
        require(
            0 <= self.dirty_fraction < 1, f"data.synthetic.dirty_fraction={self.dirty_fraction} must lie in [0, 1)"
        )
