"""The two errors that a person can mend: a wrong choice and a wrong file."""


class ConfigError(ValueError):
    """A key of the run's configuration is wrong; the message names the key, its value and what to do."""


class DataError(ValueError):
    """A log or a store is wrong; the message names the file, the place in it and what to do."""
