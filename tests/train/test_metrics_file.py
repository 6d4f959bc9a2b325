"""The history of a run survives kills and full disks, and damage to it is said once."""

import json
import random
from pathlib import Path

import pytest

from configs import atomic_files
from train.run_dir.metrics_file import NAME, MetricsFile


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


@pytest.fixture
def seen(tmp_path: Path) -> tuple[int, str]:
    """What a checkpoint of step 10 saw of a history that goes on to step 15."""
    file = MetricsFile(tmp_path, 0, 0, "")
    for step in range(1, 16):
        file.write({"step": step, "loss": 1 / step})
        if step == 10:
            found = (file.num_bytes, file.sum())
    file.close()
    return found


def test_lines_behind_the_checkpoint_go_and_no_others(
    tmp_path: Path, seen: tuple[int, str], capsys: pytest.CaptureFixture[str]
):
    file = MetricsFile(tmp_path, 10, *seen)
    file.write({"step": 11, "loss": 0.5})
    file.close()
    assert rows_of(tmp_path) == [
        *({"step": step, "loss": 1 / step} for step in range(1, 11)),
        {"step": 11, "loss": 0.5},
    ]
    assert capsys.readouterr().out == ""


def test_every_flip_and_cut_before_the_checkpoint_is_said_once_and_loses_nothing(
    tmp_path: Path, seen: tuple[int, str], capsys: pytest.CaptureFixture[str]
):
    content, draw = (tmp_path / NAME).read_bytes(), random.Random(0)
    for number in range(60):
        for path in tmp_path.iterdir():
            path.unlink()
        at = draw.randrange(seen[0])
        flipped = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
        damaged = flipped if number % 4 else content[:at]
        (tmp_path / NAME).write_bytes(damaged)
        file = MetricsFile(tmp_path, 10, *seen)
        again = (file.num_bytes, file.sum())
        file.close()
        assert f"warning: {tmp_path / NAME} is " in capsys.readouterr().out
        assert not damaged or (tmp_path / f"{NAME}.damaged-0").read_bytes() == damaged
        assert all(row["step"] <= 10 for row in rows_of(tmp_path))
        MetricsFile(tmp_path, 10, *again).close()
        assert capsys.readouterr().out == "", "it is said once"


def test_a_line_that_a_kill_tore_is_nothing_to_speak_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / NAME).write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    MetricsFile(tmp_path, 5, 0, "").close()
    assert rows_of(tmp_path) == [{"step": 1, "loss": 1.0}]
    assert capsys.readouterr().out == ""


def test_a_full_disk_while_it_is_mended_leaves_the_old_file(
    tmp_path: Path, seen: tuple[int, str], monkeypatch: pytest.MonkeyPatch
):
    damaged = (tmp_path / NAME).read_bytes().replace(b'"step": 3', b'"step": {')
    (tmp_path / NAME).write_bytes(damaged)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        MetricsFile(tmp_path, 10, *seen)
    assert (tmp_path / NAME).read_bytes() == damaged
