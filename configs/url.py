"""Which places are URLs."""


def is_url(place: str) -> bool:
    """Whether ``place`` is a URL and not a local path."""
    return "://" in place
