"""Dates and times as a user types them."""

from datetime import UTC, datetime

from configs.errors import ConfigError


def milliseconds_of(key: str, text: str) -> int:
    """``text``, an ISO date or time, in milliseconds since 1970; without a zone it is UTC.

    Raises :class:`ConfigError`, which names ``key``.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{key}={text} is no date; write it like 2020-01-31") from error
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
