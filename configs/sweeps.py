"""The runs of ``launch --multirun``: Hydra's sweep syntax, with texts read as :mod:`configs.overrides` reads them."""

import itertools
import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from configs.errors import ConfigError
from configs.overrides import plain_key, types_of_key
from configs.schema import RunConfig

_FUNCTION = re.compile(r"(choice|glob|range|sort|shuffle|interval|tag)\(.*\)", flags=re.DOTALL)
_PIECE = re.compile(
    r"""(\\.|'(\\.|[^'\\])*'|"(\\.|[^"\\])*"|\[[^\[\]]*\]|\{[^{}]*\}|\([^()]*\)|[^,])+""", flags=re.DOTALL
)
"""What stands between the commas of a text's values: a comma within quotes or brackets, or behind a backslash, is its
own."""


def swept(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values of ``overrides``, as words that :func:`configs.load.load_config` takes.

    ``seed=1,2``, ``seed=range(3)``, ``data.store=a,b``. Raises :class:`ConfigError` for an unknown key and for a
    value that cannot be read.
    """
    parser = OverridesParser.create()
    return [list(run) for run in itertools.product(*(_values(each, parser) for each in overrides))]


def _values(override: str, parser: OverridesParser) -> list[str]:
    key, equals, value = plain_key(override).partition("=")
    if not equals:
        return [override]  # the composition says what is wrong with it
    if str in types_of_key(key, RunConfig) and not _FUNCTION.fullmatch(value.strip()):
        return [f"{key}={piece}" for piece in _pieces(value)]
    try:
        parsed = parser.parse_override(f"{key}={value}")
        if not parsed.is_sweep_override():
            return [override]
        return [f"{key}={each}" for each in parsed.sweep_string_iterator()]
    except (HydraException, RecursionError, ValueError) as error:
        raise ConfigError(f"{override}: cannot be read; write several values as {key}=A,B") from error


def _pieces(text: str) -> Iterator[str]:
    """The values of a text; what has no comma at all is one value, blanks at its ends included."""
    found = [each[0] for each in _PIECE.finditer(text)]
    yield from [each.strip() for each in found] if len(found) > 1 else [text]
