"""The choices of a made-up log."""

from dataclasses import dataclass

from configs.bounds import COUNT, SEED, check_bounds


@dataclass(kw_only=True, slots=True)
class SyntheticConfig:
    """The log that ``experiment=smoke`` makes when ``data.log`` does not exist."""

    num_users: int = 0
    """Users of a made-up log, made where ``data.log`` does not exist; 0: none is made."""
    num_items: int = 0
    """Items of the made-up log."""
    mean_length: int = 20
    """Mean number of events of a user."""
    zipf_exponent: float = 1.0
    """The k-th item of a cluster is drawn in proportion to k ** -this."""
    num_tastes: int = 8
    """Latent tastes of users; each prefers certain clusters."""
    transition_probability: float = 0.6
    """Chance that an event follows from the one before instead of from the user's taste."""
    dirty_fraction: float = 0.0
    """Share of broken rows that are added on purpose."""
    seed: int = 0
    """Seed of the made-up log."""

    def __post_init__(self) -> None:
        check_bounds(
            "data.synthetic.",
            self,
            num_users=(0, COUNT),
            num_items=(0, 10**8),
            mean_length=(0, 10**6),
            zipf_exponent=(0, 100),
            num_tastes=(1, 10**4),
            transition_probability=(0, 1),
            dirty_fraction=(0, 0.99),
            seed=(0, SEED),
        )
