"""Programs that a test puts in the place of the system's."""

import os
from pathlib import Path

import pytest


class Programs:
    """A folder that is the whole PATH: what was not put there is not installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", str(folder))

    def put(self, name: str, script: str) -> None:
        """A shell script named ``name``; inside it the usual commands are there."""
        file = self.folder / name
        file.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{script}\n")
        file.chmod(0o755)
