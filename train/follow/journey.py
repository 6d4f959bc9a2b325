"""What a follow consists of: its models, their updates, and the words by which the other verbs make each. No torch.

Which model scores a window is a pure function of the choices and of which windows have events: a restart asks nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from configs.errors import ConfigError
from configs.flatten import is_among
from configs.load import load_config
from configs.overrides import as_typed, key_of
from configs.schema import DataConfig, RunConfig, Split
from configs.schema.split import DEFAULT_FRACTIONS as FRACTIONS
from configs.url import is_url
from data_pipeline.prepare.windows import Cut, config_of_window

LOG, STORE, MODELS, ROWS = "log", "store", "models", "rows"
"""Folders of ``run_dir``: the log by windows, the store that grows by them, a run for each model, a file a window."""
FIRST = "first"
"""The run of the first model, which one column keeps to the end."""
NOT_UPDATED = "not_updated"
_OURS = (
    *("follow", "init_from", "init_optimizer", "run_dir", "num_epochs", "num_steps"),
    *("data.log", "data.store", "data.version", "data.source", "data.columns", "data.event_types", "data.features"),
    *("data.deduplicate", "data.max_bad_fraction", "data.synthetic", "data.append", "data.split"),
)
"""Keys that a training of a model gets from us: the store says what became of the log."""
_OF_THE_START = ("hardware", "evaluation", "scratch_dir", "config_dir", "seed")
"""Keys that an evaluation takes from the command and not from the run that it ranks."""


@dataclass(frozen=True, slots=True)
class Journey:
    """A follow: its choices, ``words`` by which its processes compose them, and the windows of its log."""

    config: RunConfig
    words: list[str]
    cut: Cut

    @property
    def folder(self) -> Path:
        """``run_dir``."""
        return Path(self.config.run_dir)

    @property
    def num_windows(self) -> int:
        """How many windows are scored: 1 to this."""
        asked = self.config.follow.num_windows
        return min(asked, self.cut.num_windows) if asked else self.cut.num_windows

    @property
    def models(self) -> dict[str, int]:
        """After how many windows each model is updated, by its name; 0: never."""
        return {NOT_UPDATED: 0, **{f"every_{each}": each for each in self.config.follow.update_every}}

    def has_events(self, window: int) -> bool:
        """Whether ``window`` holds an event that can be used."""
        return self.cut.num_events[window] > 0

    def version(self, window: int) -> int:
        """The version of the store that holds everything up to the end of ``window``."""
        return sum(map(self.has_events, range(window + 1)))

    def updates(self, every: int, window: int) -> list[int]:
        """The windows up to ``window`` after which a model is updated: when it is due and there are new events."""
        found, last = list[int](), 0
        for due in range(every, window + 1, every) if every else ():
            if any(map(self.has_events, range(last + 1, due + 1))):
                found.append(due)
                last = due
        return found

    def run_of(self, model: str, window: int) -> str:
        """The name of the run that is ``model`` after ``window`` and its update."""
        done = self.updates(self.models[model], window)
        return f"{model}-{done[-1]:06d}" if done else FIRST

    def run_dir(self, run: str) -> str:
        """The folder of a run by its name."""
        return str(self.folder / MODELS / run)

    def prepare_config(self, window: int) -> DataConfig:
        """What prepares ``window`` into the store."""
        return config_of_window(self.config.data, self.folder / LOG, window, self.folder / STORE)

    def first_words(self) -> list[str]:
        """What trains the first model, on everything before window 1."""
        return self._training_words(FIRST, 0, self.config.num_epochs, self.config.num_steps)

    def update_words(self, model: str, window: int) -> list[str]:
        """What trains ``model`` anew after ``window``, from the run that it was before."""
        follow, before = self.config.follow, self.run_dir(self.run_of(model, window - 1))
        words = self._training_words(self.run_of(model, window), window, follow.update_epochs, 0)
        if not follow.warm_start:
            return words
        optimizer = f"init_optimizer={as_typed(follow.keep_optimizer)}"
        return [*words, f"init_from={as_typed(before)}", optimizer]

    def scoring_words(self, run: str, window: int) -> list[str]:
        """What ranks the events of ``window`` with ``run``: as ``shardrec evaluate`` takes it."""
        start = self.cut.start_ms(window)
        return [
            f"run_dir={as_typed(self.run_dir(run))}",
            *self._store_words(window),
            f"data.split={Split.GLOBAL_TIME.value}",
            # Nothing is for validation: of a split by dates it takes at least a millisecond.
            f"data.global_time_valid={time_text(start - 1)}",
            f"data.global_time_test={time_text(start)}",
            *(
                f"data.global_time_{name}_fraction={share}"
                for name, share in zip(("valid", "test"), FRACTIONS, strict=True)
            ),
            *(word for word in self.words if is_among(key_of(word), _OF_THE_START)),
        ]

    def _training_words(self, run: str, window: int, num_epochs: int, num_steps: int) -> list[str]:
        return [
            *(word for word in self.words if not is_among(key_of(word), _OURS)),
            f"run_dir={as_typed(self.run_dir(run))}",
            "data.log=",
            "data.synthetic.num_users=0",
            *self._store_words(window),
            f"data.split={Split.NONE.value}",
            f"num_epochs={num_epochs}",
            f"num_steps={num_steps}",
        ]

    def _store_words(self, window: int) -> list[str]:
        return [f"data.store={as_typed(str(self.folder / STORE))}", f"data.version={self.version(window)}"]


def time_text(time_ms: int) -> str:
    """``2024-01-31``, or with the time of day where it is not midnight; UTC."""
    time = datetime.fromtimestamp(time_ms // 1000, UTC).replace(tzinfo=None)
    if time_ms % 1000:
        return f"{time.isoformat()}.{time_ms % 1000:03d}"
    return time.isoformat() if time_ms % 86_400_000 else time.date().isoformat()


def followed(overrides: Sequence[str]) -> RunConfig:
    """The config of ``overrides``. Raises :class:`ConfigError`, which names a key, for what cannot be followed."""
    config = load_config(overrides)
    data, typed = config.data, [*map(key_of, overrides)]
    if is_url(config.run_dir):
        raise ConfigError(f"run_dir={config.run_dir}: follow keeps a store and its models there; name a local folder")
    if not data.log:
        raise ConfigError("data.log is empty; name the whole log, which follow cuts by time itself")
    if not data.columns.timestamp:
        raise ConfigError("data.columns.timestamp is empty: a log without times cannot be followed")
    _refuse_typed(config, typed)
    for name in ("min_user_events", "min_item_events"):
        if getattr(data, name) > 1:
            raise ConfigError(
                f"data.{name}={getattr(data, name)}: who has that many events is known only after the last of them; "
                f"follow takes data.{name}=1"
            )
    if data.deduplicate and data.columns.event_type and len(data.event_types) != 1:
        raise ConfigError(
            f"data.deduplicate=true with data.columns.event_type={data.columns.event_type}: the store that follow "
            f"adds to does not hold the types of its events; choose one by data.event_types"
        )
    return config


def _refuse_typed(config: RunConfig, typed: Sequence[str]) -> None:
    reasons = {
        "data.store": f"follow makes its own store in run_dir={config.run_dir}",
        "data.version": "follow makes its own store",
        "data.append": "follow adds each window to its store itself",
        "data.engine": "follow prepares on this machine",
        "data.split": "follow trains on every event before a window and ranks the events in it",
        "data.global_time_valid": "follow cuts by follow.window and follow.start",
        "data.global_time_test": "follow cuts by follow.window and follow.start",
        "checkpoint.use": "a model that is trained on every event is the only one of its run",
        "init_from": "the first model starts from scratch, and follow.warm_start says how updates start",
        "init_optimizer": "updates take them over by follow.keep_optimizer",
        "train.refit": "follow trains on every event anyway",
    }
    for key, why in reasons.items():
        if key in typed:
            raise ConfigError(f"{key}: {why}; leave {key} out")
