"""Programs that are run where packages are out of reach."""

_FINDER = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        is_blocked = name.partition(".")[0] in BLOCKED
        return None if is_blocked else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):  # some packages ask which others are installed
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def without(*packages: str) -> str:
    """The first lines of a program that cannot import any of ``packages``."""
    return f"BLOCKED = {packages!r}{_FINDER}"
