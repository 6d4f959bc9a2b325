"""How `shardrec follow` goes through a log by time and updates its models; never a part of what a run is."""

from dataclasses import dataclass, field
from enum import Enum

from configs.bounds import COUNT, check_bounds
from configs.errors import require
from configs.schema.times import milliseconds_of

FIRST_WINDOWS = 7
"""Of :class:`FollowConfig`: another number was set by the user."""
_HOUR_MS = 3_600_000
_MONDAY_MS = 4 * 24 * _HOUR_MS
"""1970-01-05, a Monday."""


class Window(str, Enum):
    """The time between two scorings, in UTC."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """From Monday to Sunday."""

    @property
    def ms(self) -> int:
        """Its length in milliseconds."""
        return {Window.HOUR: 1, Window.DAY: 24, Window.WEEK: 7 * 24}[self] * _HOUR_MS


@dataclass(kw_only=True, slots=True)
class FollowConfig:
    """Test, then train: every window of a log is scored with the models of before, and then trained on."""

    window: Window = Window.DAY
    """Length of a window, in UTC; a week begins on Monday, or where ``follow.start`` says."""
    start: str = ""
    """Date or time at which the first scored window begins, and before which the first model learns; empty: by
    ``follow.first_windows``."""
    first_windows: int = FIRST_WINDOWS
    """Windows from the log's first event on that the first model learns from."""
    num_windows: int = 0
    """Windows that are scored, with those without an event; 0: up to the log's last event."""
    update_every: list[int] = field(default_factory=lambda: [1])
    """A model is updated after every this many windows; several numbers, such as [1,7], give a model each."""
    update_epochs: int = 1
    """Passes over all events so far that an update trains; the first model trains ``num_epochs``."""
    warm_start: bool = True
    """An update begins with the model that it replaces; false: from scratch."""
    keep_optimizer: bool = False
    """An update takes over the state of the optimizers too; needs ``follow.warm_start``."""
    keep_models: int = 0
    """Newest models of each ``follow.update_every`` that stay on disk beside the first one, with the versions of the
    store that they read; 0: all."""

    def __post_init__(self) -> None:
        check_bounds(
            "follow.",
            self,
            first_windows=(1, COUNT),
            num_windows=(0, COUNT),
            update_epochs=(1, COUNT),
            keep_models=(0, COUNT),
        )
        require(
            self.warm_start or not self.keep_optimizer,
            "follow.keep_optimizer=true needs follow.warm_start=true: a model from scratch has new optimizers",
        )
        for each in self.update_every:
            require(1 <= each <= COUNT, f"follow.update_every={each} must be in [1, {COUNT}]: a number of windows")
        require(
            0 < len(set(self.update_every)) == len(self.update_every),
            f"follow.update_every={self.update_every} needs numbers of windows, each once, such as [1,7]",
        )
        if self.start:
            milliseconds_of("follow.start", self.start)
            require(
                self.first_windows == FIRST_WINDOWS,
                f"follow.start={self.start} and follow.first_windows={self.first_windows} both say where scoring "
                f"begins; set one of them",
            )

    @property
    def origin_ms(self) -> int:
        """A moment at which a window begins, in milliseconds since 1970."""
        if self.start:
            return milliseconds_of("follow.start", self.start)
        return _MONDAY_MS if self.window is Window.WEEK else 0
