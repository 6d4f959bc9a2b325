"""The run that a verb uses, as its folder says."""

from collections.abc import Sequence

from configs.atomic_files import read_text
from configs.errors import ConfigError
from configs.load import load_pinned
from configs.overrides import read_overrides
from configs.run_dir import READER, local_run_dir
from configs.saved_run import CONFIG, compose_saved, place_overrides
from configs.schema import RunConfig
from configs.url import is_url
from launch.command import run_module


def saved_run(overrides: Sequence[str]) -> tuple[RunConfig, list[str]]:
    """The run in the ``run_dir`` of ``overrides``, with ``overrides`` on top; and ``overrides`` for the processes.

    For them the run's place is resolved.

    Raises :class:`ConfigError` where there is none, or where its ``config.yaml`` cannot be fetched: then what fetches
    it has said why.
    """
    read_overrides(overrides, RunConfig)  # a wrong key is found before anything is fetched
    named = place_overrides(overrides)
    place, words = load_pinned(named)
    if is_url(place.run_dir) and run_module("train.run_dir.fetch_config", words):
        raise ConfigError(f"run_dir={place.run_dir} could not be read")
    path = local_run_dir(place, READER) / CONFIG
    if not path.is_file():
        raise ConfigError(f"run_dir={place.run_dir} holds no run; train it first")
    words = [*(each for each in overrides if each not in named), *words]
    return compose_saved(read_text(path), path, words), words
