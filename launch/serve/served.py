"""What is served at the moment, and how a newer export takes its place without a lost request."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from configs.errors import DataError
from configs.schema.serve import ServerConfig
from launch.serve.export_folder import stamp_of
from launch.serve.histories import StoreHistories
from launch.serve.metrics import Metrics
from launch.serve.model import Model, load_model


@dataclass(frozen=True, slots=True)
class State:
    """A model and the histories of the store, loaded together; a request keeps the one that it began with."""

    model: Model
    store: StoreHistories | None


class Served:
    """Holds the :class:`State`, None until the first one is loaded."""

    def __init__(self, config: ServerConfig, metrics: Metrics) -> None:
        self.state: State | None = None
        self._config, self._metrics = config, metrics
        self._folder = Path(config.export)
        self._lock = asyncio.Lock()
        self._stamp = stamp_of(self._folder)

    async def load(self) -> bool:
        """Load what is in the folder, beside the state that answers meanwhile, and put it in its place.

        Returns whether it is another model. Raises :class:`DataError` for a broken one: the older one goes on.
        """
        async with self._lock:
            self._stamp = stamp_of(self._folder)
            try:
                state = await asyncio.to_thread(load_state, self._config)
            except DataError:
                self._metrics.reloads.labels("refused").inc()
                raise
            changed = self.state is None or self.state.model.version != state.model.version
            self.state = state
            self._metrics.model_is(state.model.version)
            self._metrics.reloads.labels("loaded").inc()
            return changed

    async def load_or_tell(self) -> None:
        """:meth:`load`, with a line on stderr of how it went."""
        try:
            await self.load()
        except DataError as error:
            tell(f"the newer export is refused, the older one keeps serving: {error}")
        else:
            assert self.state is not None, "it was loaded"
            tell(f"model {self.state.model.version} answers from now on")

    async def watch(self, seconds: float) -> None:
        """Load the export whenever a file of its folder has changed and none changes any more; never returns."""
        before = self._stamp
        while True:
            await asyncio.sleep(seconds)
            stamp = stamp_of(self._folder)
            if stamp and stamp != self._stamp and stamp == before:
                await self.load_or_tell()
            before = stamp


def load_state(config: ServerConfig) -> State:
    """Read export and store. Raises :class:`DataError`."""
    model = load_model(Path(config.export))
    store = None
    if config.serve.store:
        store = StoreHistories(Path(config.serve.store), model.features)
        store.refuse_other_items(model.items, Path(config.serve.store))
    return State(model, store)


def tell(text: str) -> None:
    """A line of the server's log."""
    print(f"shardrec serve: {' '.join(text.split())}", file=sys.stderr, flush=True)
