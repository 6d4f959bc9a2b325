"""A run as its ``config.yaml`` says it was: every key, and which variant of each group they are of."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from configs.choices import PRESETS, names_of
from configs.errors import ConfigError, DataError
from configs.flatten import flat
from configs.load import VARIANTS, load_config
from configs.overrides import as_typed, key_of
from configs.renamed_keys import with_new_names
from configs.schema import RunConfig

CONFIG = "config.yaml"
_OF_THE_MACHINE = ("run_dir", "scratch_dir", "config_dir")
"""Keys of a saved run that say where it was, not what it is: whoever reads it names its folder."""


def compose_saved(text: str, shown: object, overrides: Sequence[str] = ()) -> RunConfig:
    """The run whose ``config.yaml`` holds ``text``, with ``overrides`` on top, which name its ``run_dir`` too.

    Today's defaults have no part in it, but for keys that did not exist then. A group that is chosen anew, as by
    ``hardware=h100``, brings its own values. ``shown``: the file, for messages. Raises :class:`ConfigError` for a key
    that this version does not know, and as :func:`load_config` does; :class:`DataError` where it cannot be read.
    """
    groups = {*map(key_of, overrides)}
    if PRESETS in groups:
        raise ConfigError(f"{PRESETS} chooses another run; {shown} says what this one is: set single keys")
    saved = _parsed(text, shown)
    variants = saved.pop(VARIANTS, None)
    if variants is None:
        raise DataError(f"{shown} does not say of which variants its keys are ({VARIANTS}); another version wrote it")
    for group, name in variants.items():
        if name not in (known := names_of(group)):
            raise ConfigError(
                f"{shown}: {group}={name} is not known here ({', '.join(known)} are); install the package that it is "
                f"of, or another version wrote the run"
            )
    chosen = [f"{group}={name}" for group, name in variants.items()]
    keys = [(key, value) for key, value in flat(saved) if key.partition(".")[0] not in {*groups, *_OF_THE_MACHINE}]
    saved_overrides = [*chosen, *(f"{key}={as_typed(value)}" for key, value in keys)]
    try:
        load_config(saved_overrides)
    except ConfigError as error:
        raise ConfigError(f"{shown}: {error} (another version may have written it)") from error
    return load_config([*saved_overrides, *overrides])


def saved_keys(text: str, shown: object) -> dict[str, Any]:
    """Every key of the ``config.yaml`` that holds ``text``, by its dotted name, with its value.

    ``model``, ``loss`` and ``optimizer`` are the names of the variants. Nothing is checked against today's keys, so
    that runs of other versions, and of models that are not installed here, can be read. Raises :class:`DataError`
    where it cannot be read.
    """
    saved = _parsed(text, shown)
    variants = saved.pop(VARIANTS, None)
    return {**(variants if isinstance(variants, dict) else {}), **with_new_names(dict(flat(saved)))}


def place_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that say where a run lies: all that is needed to find its ``config.yaml``."""
    return [each for each in overrides if each.partition("=")[0] in ("run_dir", "scratch_dir")]


def _parsed(text: str, shown: object) -> dict[str, Any]:
    try:
        saved = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise DataError(f"{shown} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(saved, dict):
        raise DataError(f"{shown} cannot be read: it holds no keys")
    return {str(key): value for key, value in saved.items()}
