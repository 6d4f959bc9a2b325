"""A small file is whole or not there, and a bit that was turned in it is found."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import atomic_files
from configs.atomic_files import read_json, read_text, write_atomically, write_json, write_text
from configs.errors import DataError

DOCUMENT = {
    "step": 10,
    "quality": {"ndcg@10": 0.12345678901234567},
    "ranges": [[1, 2]],
    "name": "lög \udcff",
    "none": None,
}
TEXT = "data.log=/tmp/lög\ndata.store=\udcff # not a comment\n"


def test_what_was_written_is_read(tmp_path: Path):
    write_json(tmp_path / "a.json", DOCUMENT)
    write_text(tmp_path / "a.txt", TEXT)
    assert read_json(tmp_path / "a.json") == DOCUMENT
    assert read_text(tmp_path / "a.txt") == TEXT


def test_every_flip_and_cut_is_found_or_changes_nothing(tmp_path: Path):
    write_json(tmp_path / "a.json", DOCUMENT)
    write_text(tmp_path / "a.txt", TEXT)
    for path, read, right in ((tmp_path / "a.json", read_json, DOCUMENT), (tmp_path / "a.txt", read_text, TEXT)):
        content = path.read_bytes()
        flipped = [
            content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            for at in range(len(content))
            for bit in range(8)
        ]
        num_found = 0
        for damaged in [*flipped, *(content[:size] for size in range(len(content)))]:
            path.write_bytes(damaged)
            found, message = outcome(read, path)
            assert found == right or str(path) in message
            num_found += bool(message)
        assert num_found > 8 * len(content)


def outcome(read: Callable[[Path], object], path: Path) -> tuple[object, str]:
    """What was read, or the message."""
    try:
        return read(path), ""
    except DataError as error:
        return None, str(error)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_atomically(tmp_path / "f", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_a_foreign_file_beside_is_left_alone(tmp_path: Path):
    for name in ("f.partial", ".f.partial", "f.tmp"):
        (tmp_path / name).write_text("mine")
    write_atomically(tmp_path / "f", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "f": "new",
        "f.partial": "mine",
        ".f.partial": "mine",
        "f.tmp": "mine",
    }


def test_random_bytes_are_refused_by_name(tmp_path: Path):
    draw = random.Random(0)
    for _ in range(200):
        (tmp_path / "f").write_bytes(draw.randbytes(draw.randrange(40)))
        for read in (read_json, read_text):
            with pytest.raises(DataError, match="is damaged"):
                read(tmp_path / "f")
