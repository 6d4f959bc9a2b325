"""The folder of an export is whole or not there, and nothing that we did not write is touched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.atomic_files import json_with_sum
from configs.errors import ConfigError
from configs.load import load_config
from train.export.folder import FORMAT, MARK, MODEL, new_folder, sums_of
from train.export.output import output_of


def write_export(output: Path, word: str) -> None:
    """An export whose one file holds ``word``."""
    with new_folder(output) as folder:
        (folder / "README.md").write_text(word)
        (folder / MODEL).write_text(json_with_sum({"format": FORMAT, "files": sums_of(folder)}))


def content_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """What a kill does, as far as a process can see it."""


def test_an_older_export_is_replaced_as_a_whole(tmp_path: Path) -> None:
    output = tmp_path / "export"
    write_export(output, "first")
    write_export(output, "second")
    assert set(content_of(output)) == {"README.md", MODEL}
    assert (output / "README.md").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_block_that_fails_leaves_the_older_export(tmp_path: Path) -> None:
    output = tmp_path / "export"
    write_export(output, "first")
    before = content_of(tmp_path)

    def fail() -> None:
        with new_folder(output) as folder:
            (folder / "README.md").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert content_of(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("after_renames", [0, 1, 2])
def test_a_kill_between_renames_leaves_whole_exports_that_the_next_one_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_renames: int
) -> None:
    output, left, real = tmp_path / "export", [after_renames], Path.rename
    write_export(output, "first")

    def rename(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    if after_renames == 2:
        write_export(output, "second")
    else:
        with pytest.raises(Killed):
            write_export(output, "second")
    monkeypatch.undo()
    whole = {path.name: (path / "README.md").read_text() for path in tmp_path.iterdir() if (path / MODEL).exists()}
    expected = [
        {"export": "first", "export.partial": "second"},
        {"export.replaced": "first", "export.partial": "second"},
        {"export": "second"},
    ]
    assert whole == expected[after_renames]
    write_export(output, "third")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (output / "README.md").read_text() == "third"


def foreign_folder(output: Path) -> None:
    output.mkdir()
    (output / "README.md").write_text("mine")


def foreign_file_in_an_export(output: Path) -> None:
    write_export(output, "ours")
    (output / "notes.txt").write_text("mine")


def foreign_folder_in_an_export(output: Path) -> None:
    write_export(output, "ours")
    (output / "notes").mkdir()
    (output / "notes" / "a.txt").write_text("mine")


def changed_file(output: Path) -> None:
    write_export(output, "ours")
    (output / "README.md").write_text("ours, and a line of mine")


def changed_model_json(output: Path) -> None:
    write_export(output, "ours")
    document = json.loads((output / MODEL).read_text())
    (output / MODEL).write_text(json.dumps({**document, "note": "mine"}))


def a_file(output: Path) -> None:
    output.write_text("mine")


def foreign_partial(output: Path) -> None:
    foreign_folder(output.with_name(f"{output.name}.partial"))


def file_in_a_partial(output: Path) -> None:
    partial = output.with_name(f"{output.name}.partial")
    partial.mkdir()
    (partial / MARK).touch()
    (partial / "notes.txt").write_text("mine")


def foreign_replaced(output: Path) -> None:
    foreign_folder(output.with_name(f"{output.name}.replaced"))


def file_among_compiled_scripts(output: Path) -> None:
    compiled_script(output)
    (output / "__pycache__" / "notes.pyc").write_text("mine")


def compiled_script(output: Path) -> None:
    write_export(output, "first")
    (output / "__pycache__").mkdir()
    (output / "__pycache__" / "example.cpython-311.pyc").write_text("what Python makes of a script")


def test_what_python_makes_of_a_script_of_an_export_is_no_file_of_yours(tmp_path: Path) -> None:
    compiled_script(tmp_path / "export")
    write_export(tmp_path / "export", "second")
    assert set(content_of(tmp_path)) == {"export/README.md", f"export/{MODEL}"}


@pytest.mark.parametrize(
    "make",
    [
        file_among_compiled_scripts,
        foreign_folder,
        foreign_file_in_an_export,
        foreign_folder_in_an_export,
        changed_file,
        changed_model_json,
        a_file,
        foreign_partial,
        file_in_a_partial,
        foreign_replaced,
    ],
)
def test_what_we_did_not_write_is_refused_and_left(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "export")
    before = content_of(tmp_path)
    config = load_config([f"run_dir={tmp_path}/run", f"export.output={tmp_path}/export"])
    with pytest.raises(ConfigError, match=r"export\.output.*name another"):
        output_of(config)
    assert content_of(tmp_path) == before


def test_two_exports_at_once_into_one_folder_are_refused(tmp_path: Path) -> None:
    with new_folder(tmp_path / "export"), pytest.raises(ConfigError, match="being written by another export"):
        write_export(tmp_path / "export", "second")


def test_what_a_killed_export_left_is_taken_over(tmp_path: Path) -> None:
    partial = tmp_path / "export.partial"
    partial.mkdir()
    (partial / MARK).touch()
    (partial / "encoder.pt2").write_text("half")
    write_export(tmp_path / "export", "whole")
    assert set(content_of(tmp_path)) == {"export/README.md", f"export/{MODEL}"}


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("{0}/store/export", "is inside data.store"),
        ("{0}/store", "one place"),
        ("{0}", "is inside export.output"),
        ("{0}/run/checkpoints/export", "is inside the folder of checkpoints"),
        ("{0}/run/checkpoints/best", "is inside the folder of checkpoints"),
        ("{0}/file/export", "is no folder"),
        ("s3://", "names no folder"),
        ("ftp://bucket/export", "use s3://"),
    ],
)
def test_an_output_in_a_place_of_something_else_is_refused(tmp_path: Path, output: str, told: str) -> None:
    (tmp_path / "file").write_text("")
    overrides = [f"data.store={tmp_path}/store", f"run_dir={tmp_path}/run"]
    overrides += [f"export.output={output.format(tmp_path)}"]
    with pytest.raises(ConfigError, match=told):
        output_of(load_config(overrides))
