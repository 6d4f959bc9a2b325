"""The processes that a command has started: torchrun gives every rank a session of its own."""

from pathlib import Path


def family_of(process: int) -> set[int]:
    """``process`` and all that descend from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
