"""Unusual and broken folders and names."""

import os
from pathlib import Path

from dirty.case import CLEAN, Case, content, csv_text, files, frame, parquet

ONE = {"a.parquet": lambda: frame()}


def folder_with_a_loop(folder: Path) -> str:
    """A link inside the folder leads back to it."""
    log = files({"day/a.parquet": frame})(folder)
    (folder / "log" / "day" / "again").symlink_to(folder / "log", target_is_directory=True)
    return log


def linked_folder(folder: Path) -> str:
    """The folder holds a link to where the files are."""
    parquet(frame, "elsewhere/a.parquet")(folder)
    (folder / "log").mkdir()
    (folder / "log" / "day").symlink_to(folder / "elsewhere", target_is_directory=True)
    return str(folder / "log")


def broken_link(folder: Path) -> str:
    """A link to a file that is gone."""
    log = files(ONE)(folder)
    (folder / "log" / "b.parquet").symlink_to(folder / "gone.parquet")
    return log


def pipe(folder: Path) -> str:
    """A named pipe, from which nothing ever comes."""
    os.mkfifo(folder / "log.csv")
    return str(folder / "log.csv")


def unreadable(folder: Path) -> str:
    """A file that nobody may read."""
    log = parquet(frame)(folder)
    Path(log).chmod(0)
    return log


FOLDERS = [
    Case(
        name="hidden and temporary files and folders",
        make=files(
            {
                **ONE,
                "_SUCCESS": "",
                ".a.parquet.crc": "x",
                "_temporary/0/b.parquet": frame,
                ".ipynb_checkpoints/c.parquet": frame,
            }
        ),
        rule="names that start with `.` or `_` are left out, as Spark and Hive do",
    ),
    Case(
        name="columns in the names of folders, as Hive partitions",
        make=files({"day=1/a.parquet": lambda: frame(CLEAN[:9]), "day=2/a.parquet": lambda: frame(CLEAN[9:])}),
        rule="the files are read, such columns are not",
    ),
    Case(
        name="files that are no data beside the log",
        make=files({**ONE, "README.md": "x", "schema.json": "{}"}),
        rule="papers are passed over; what is not known by its name or content is counted and named",
    ),
    Case(
        name="data in a format that is not read",
        make=files({**ONE, "b.orc": "x"}),
        says=("b.orc is of a format that is not read",),
    ),
    Case(
        name="an archive beside the log",
        make=files({**ONE, "b.csv.zip": "x"}),
        says=("b.csv.zip is of a format that is not read",),
    ),
    Case(name="a Delta table", make=files({**ONE, "_delta_log/0.json": "{}"}), says=("is a Delta table",)),
    Case(name="a link that leads back", make=folder_with_a_loop, rule="each folder is read once"),
    Case(name="a linked folder", make=linked_folder, rule="links are followed"),
    Case(name="a link to nothing", make=broken_link, says=("b.parquet is no regular file",)),
    Case(
        name="a folder named x.parquet, as Spark writes",
        make=files({"x.parquet/part-0.parquet": frame, "x.parquet/_SUCCESS": ""}),
        rule="a folder is read, whatever its name",
    ),
    Case(
        name="a glob of such folders",
        make=files(
            {
                "1.parquet/part-0.parquet": lambda: frame(CLEAN[:9]),
                "2.parquet/part-0.parquet": lambda: frame(CLEAN[9:]),
                "other/part-0.parquet": frame,
            },
            log="log/*.parquet",
        ),
        rule="the folders that it names are read, with all below them",
    ),
    Case(
        name="a name with the characters of a glob",
        make=parquet(frame, "log[1]*.parquet"),
        rule="what exists by its very name is no glob",
    ),
    Case(
        name="endings in capitals",
        make=files({"A.PARQUET": lambda: frame(CLEAN[:9]), "B.Csv": csv_text(CLEAN[9:])}),
        rule="PARQUET is parquet",
    ),
    Case(
        name="a path that does not exist", make=lambda folder: str(folder / "absent"), says=("absent names no file",)
    ),
    Case(name="a glob that names nothing", make=lambda folder: str(folder / "*.csv"), says=("names no file",)),
    Case(name="an empty folder", make=files({"_SUCCESS": ""}), says=("names no file",)),
    Case(name="an unknown ending", make=content("x", "log.txt"), says=("log.txt is of an unknown format",)),
    Case(name="a named pipe", make=pipe, says=("log.csv is no regular file",)),
    Case(
        name="a file without permission to read",
        make=unreadable,
        must_run_unprivileged=True,
        says=("log.parquet cannot be read", "Permission denied"),
    ),
    Case(
        name="a file that is removed while the log is read",
        make=parquet(frame),
        is_removed_once_open=True,
        says=("log.parquet is not there; bring it back",),
    ),
]
