"""Encoders that are installed beside this project: packages name them under the entry point ``shardrec.encoders``."""

from functools import cache
from importlib.metadata import entry_points

from configs.errors import ConfigError
from configs.schema.model import ENCODERS, EncoderConfig, OutsideConfig

GROUP = "shardrec.encoders"


@cache
def encoders() -> dict[str, type[EncoderConfig]]:
    """The config of each encoder by its name: ours first, then those of other packages.

    Only what is installed is imported, never what a run folder names. Raises :class:`ConfigError` for an entry that
    has the name of one of ours, cannot be imported or is no config of an encoder.
    """
    found = dict(ENCODERS)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        shown = f"the entry point {entry.name} = {entry.value} of {GROUP}"
        if entry.name in found:
            raise ConfigError(f"{shown}: there is an encoder of that name already; give yours another")
        try:
            config = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{shown} cannot be imported ({error}); fix or uninstall its package") from error
        if not (isinstance(config, type) and issubclass(config, OutsideConfig)):
            raise ConfigError(f"{shown} is no subclass of configs.schema.model.OutsideConfig: docs/add_a_model.md")
        found[entry.name] = config
    return found
