"""Find the files of a log in order of arrival: by name, by content where names do not say, by version in tables."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig
from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.formats import SUFFIXES, file_layout_of, suffix_of
from data_pipeline.prepare.read.sniff import compression_of, foreign_format, start_of, view_of_content
from data_pipeline.prepare.read.tables import (
    TableVersion,
    is_iceberg_metadata,
    kind_of_table,
    refuse_part_of,
    table_above,
    table_files,
)
from data_pipeline.store.paths import AnyPath, ObjectPath, objects_of, path_of

_UNREAD_SUFFIXES = (".orc", ".avro", ".feather", ".arrow", ".xlsx", ".zip", ".tar", ".tgz", ".7z", ".rar")
"""Formats of data that a folder's files may not silently be left out for."""
_UNPACKED_SUFFIXES = (".bz2", ".xz", ".lz4")
_NO_DATA_SUFFIXES = (
    *(".crc", ".md5", ".sha1", ".sha256", ".sig", ".asc", ".md", ".rst", ".html", ".pdf", ".png", ".jpg", ".svg"),
    *(".yaml", ".yml", ".toml", ".ini", ".py", ".ipynb", ".sh", ".sql"),
)
_NO_DATA_NAMES = ("readme", "license", "licence", "notice", "checksums", "thumbs.db")
"""What lies beside logs and is none; names that start with a dot or an underscore are left out as well."""
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_NAMES_SHOWN = 5


@dataclass(kw_only=True, slots=True)
class LogFiles:
    """The files of a log, and what else was found."""

    paths: list[AnyPath] = field(default_factory=list)
    """In order of arrival: by path, within a table by commit."""
    views: dict[AnyPath, FileView] = field(default_factory=dict)
    """How those are read that are not read by their name alone."""
    tables: list[TableVersion] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    """Bytes of each file that nothing says to be a part of the log."""
    links: dict[str, str] = field(default_factory=dict)
    """Names that lead to a file which counts by another name, and that name."""

    def view(self, path: AnyPath) -> FileView:
        """How ``path`` is read."""
        return self.views.get(path) or FileView()

    def paths_of_tables(self) -> set[str]:
        """The files that are known by their table."""
        return {path for table in self.tables for path in table.files}

    def lines(self) -> list[str]:
        """What a person should know of what was found."""
        lines = [
            f"{table.root} is {table.kind}: {len(table.files):,} files of version {table.version}"
            for table in self.tables
        ]
        if self.skipped:
            lines.append(
                f"note: left out, since nothing says that they are part of the log: {describe_skipped(self.skipped)}"
            )
        if self.links:
            pairs = [f"{link} is {path}" for link, path in self.links.items()]
            shown = ", ".join(pairs[:_NAMES_SHOWN]) + (", ..." if pairs[_NAMES_SHOWN:] else "")
            lines.append(f"note: a file that has several names counts once: {shown}")
        return lines


def find_log_files(log: str, source: SourceConfig | None = None) -> list[AnyPath]:
    """The paths alone of :func:`find_log`."""
    return find_log(log, source).paths


def find_log(log: str, source: SourceConfig | None = None, columns: ColumnsConfig | None = None) -> LogFiles:
    """Files of ``log``: a file, a folder with all below it, a table of a lake, or a glob of them.

    In a folder, names that start with ``.`` or ``_`` are left out, as Spark and Hive do; links are followed, each
    folder once. A folder that a glob names is taken with all below it. A file whose name does not say what it holds
    is taken by its content, where that has the log's ``columns``.
    """
    source = source or SourceConfig()
    if not log:
        raise ConfigError("data.log is empty; set it to a file, a folder or a glob of Parquet, CSV or JSON lines")
    place = path_of(log)
    search = _Search(log, source, columns or ColumnsConfig())
    search.add_local(place) if isinstance(place, Path) else search.add_objects(place.url)
    return search.result()


class _Search:
    """What has been found so far, each file with its place in the order."""

    def __init__(self, log: str, source: SourceConfig, columns: ColumnsConfig) -> None:
        self._log, self._source = log, source
        self._needed = [name for name in (columns.user, columns.item, columns.timestamp) if name]
        self._found: dict[AnyPath, tuple[tuple[str, ...], int]] = {}
        self._into = LogFiles()
        self._tables: set[AnyPath] = set()

    def result(self) -> LogFiles:
        """The files in order; DataError where there is none, or too much was left out."""
        found = self._into
        found.paths = self._each_file_once(sorted(self._found, key=lambda path: self._found[path]))
        if found.skipped:
            self._check_skipped()
        if not found.paths and not found.tables:
            raise DataError(
                f"data.log={self._log} names no file; give a {', '.join(SUFFIXES)} file, a folder or a glob of them"
            )
        if not found.paths:
            raise DataError(f"data.log={self._log}: {found.tables[0].root} is {found.tables[0].kind} without a row")
        for path in found.paths:
            constants = _partition_of(path)
            if constants:
                view = found.views.setdefault(path, FileView())
                view.constants = {**constants, **view.constants}
        if self._source.snapshot and len(found.tables) != 1:
            raise ConfigError(
                f"data.source.snapshot={self._source.snapshot} is of one table, and data.log={self._log} holds "
                f"{len(found.tables)}; set data.log to a table, or leave data.source.snapshot out"
            )
        return found

    def _each_file_once(self, paths: list[AnyPath]) -> list[AnyPath]:
        """``paths`` without links to files among them: one file is one part of the log, whatever its names."""
        first: dict[tuple[int, int], AnyPath] = {}
        for path in (each for each in paths if isinstance(each, Path) and each.exists()):
            status = path.stat()
            known = first.setdefault((status.st_dev, status.st_ino), path)
            if known != path and status.st_ino:
                self._into.links[str(path)] = str(known)
        return [path for path in paths if str(path) not in self._into.links]

    def add_local(self, place: Path) -> None:
        """What a path names, or a glob."""
        is_glob = not place.exists()
        named = [Path(name) for name in glob.glob(str(place), recursive=True)] if is_glob else [place]
        self._refuse_parts_of_tables(named)
        for entry in named:
            if entry.is_dir():
                self._add_folder(entry)
            elif not entry.is_file():
                raise DataError(f"{entry} is no regular file; data.log takes files")
            elif not (is_glob and _is_no_data(entry.name)):
                self._add_named(entry)

    def add_objects(self, url: str) -> None:
        """Objects by the rules for local files: those that are named, and of those below a folder the ones of a log.

        Empty objects whose names end with a slash stand for folders in some tools; they are none of a log's files.
        """
        objects = objects_of(url)
        tables = _tables_among([place for place, _ in objects])
        self._refuse_parts_of_tables([place for place, is_named in objects if is_named])
        if not any(is_named for _, is_named in objects):
            self._refuse_parts_of_tables([ObjectPath(url.rstrip("/"))] if objects else [])
        for root, kind in tables.items():
            self._add_table(root, kind)
        for place, is_named in objects:
            below = place.parts[len(path_of(url).parts) :]
            if any(place.parts[: len(root.parts)] == root.parts for root in tables):
                continue
            if is_named:
                self._add_named(place)
            elif not any(_is_hidden(name) for name in below):
                self._add(place)

    def _add_folder(self, folder: Path) -> None:
        seen: set[tuple[int, int]] = set()
        for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            metadata = Path(place) / "metadata"
            has_metadata = "metadata" in folders and any(
                is_iceberg_metadata(each.name) for each in metadata.iterdir()
            )
            if (kind := kind_of_table([*folders, *names], has_metadata)) is not None:
                self._add_table(Path(place), kind)
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            for name in names:
                if not _is_hidden(name):
                    self._add(Path(place) / name)

    def _add_table(self, root: AnyPath, kind: str) -> None:
        if root in self._tables:
            return
        self._tables.add(root)
        version, files = table_files(root, kind, self._source.snapshot)
        for number, (path, view) in enumerate(files):
            self._found[path] = (root.parts, number)
            self._into.views[path] = view
        digests = {str(path): view.digest for path, view in files}
        self._into.tables.append(TableVersion(kind=kind, root=str(root), version=version, files=digests))

    def _add_named(self, path: AnyPath) -> None:
        """A file that the user or a glob names: it is read, or refused."""
        is_known = file_layout_of(path, self._source) is not Layout.AUTO
        if not is_known or path.suffix.lower() in _UNPACKED_SUFFIXES:
            start = start_of(path)
            view = view_of_content(path, start, self._source, self._needed)
            if view is None and is_known:
                view = FileView(compression=compression_of(start))
            if view is None:
                _refuse_unread(path, start)
                raise DataError(
                    f"{path} is of an unknown format: its name does not say, and its content has no "
                    f"{' '.join(map(repr, self._needed))}; data.log takes {', '.join(SUFFIXES)}, and others where "
                    f"data.source.layout says how they are written"
                )
            self._into.views[path] = view
        self._found[path] = (path.parts, 0)

    def _add(self, path: AnyPath) -> None:
        """A file of a folder."""
        if isinstance(path, Path) and not path.is_file():
            raise DataError(f"{path} is no regular file; data.log takes files")
        if suffix_of(path) in SUFFIXES and path.suffix.lower() not in _UNREAD_SUFFIXES:
            self._found[path] = (path.parts, 0)
            return
        if _is_no_data(path.name) or (size := path.stat().st_size) == 0:
            return
        start = start_of(path)
        view = view_of_content(path, start, self._source, self._needed)
        if view is None:
            _refuse_unread(path, start)
            self._into.skipped[str(path)] = size
        else:
            self._into.views[path] = view
            self._found[path] = (path.parts, 0)

    def _check_skipped(self) -> None:
        skipped = self._into.skipped
        read = sum(path.stat().st_size for path in self._into.paths)
        share = sum(skipped.values()) / (read + sum(skipped.values()))
        if share > self._source.max_skipped_fraction:
            raise DataError(
                f"data.log={self._log}: {describe_skipped(skipped)}, {share:.2%} of all bytes, hold nothing that is "
                f"known as a part of the log, more than data.source.max_skipped_fraction="
                f"{self._source.max_skipped_fraction}; if they are the log, set data.source.layout and data.source."
                f"separator as they are written; else name the log's files by a glob, move the others away, or raise "
                f"data.source.max_skipped_fraction to leave them out"
            )

    def _refuse_parts_of_tables(self, named: Iterable[AnyPath]) -> None:
        looked = set()
        for place in named:
            above = place.parts[:-1]
            if above not in looked and (found := table_above(place)) is not None:
                refuse_part_of(place, *found)
            looked.add(above)


def describe_skipped(skipped: dict[str, int]) -> str:
    """How many files were left out, and the first of their names."""
    names = list(skipped)
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if names[_NAMES_SHOWN:] else "")
    return f"{len(names):,} file{'s' if len(names) > 1 else ''} of {sum(skipped.values()):,} bytes ({shown})"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _is_no_data(name: str) -> bool:
    low = name.lower()
    return _is_hidden(name) or low.endswith(_NO_DATA_SUFFIXES) or low.removesuffix(".txt") in _NO_DATA_NAMES


def _tables_among(places: Sequence[ObjectPath]) -> dict[AnyPath, str]:
    """The tables that a listing of objects shows, by root; a table inside of a table is a part of it."""
    entries: dict[tuple[str, ...], set[str]] = {}
    iceberg: set[tuple[str, ...]] = set()
    for place in places:
        parts = place.parts
        for depth in range(3, len(parts)):
            entries.setdefault(parts[:depth], set()).add(parts[depth])
        if parts[-2] == "metadata" and is_iceberg_metadata(parts[-1]):
            iceberg.add(parts[:-2])
    found: dict[AnyPath, str] = {}
    for parts in sorted(entries):
        kind = kind_of_table(entries[parts], parts in iceberg)
        if kind is not None and not any(parts[: len(root.parts)] == root.parts for root in found):
            found[ObjectPath("/".join(parts))] = kind
    return found


def _partition_of(path: AnyPath) -> dict[str, str | None]:
    """Values of the folders that a file lies in, ``name=value`` each, as Hive and Spark write them."""
    found: dict[str, str | None] = {}
    for part in path.parts[:-1]:
        name, is_pair, value = part.partition("=")
        if is_pair and name:
            found[unquote(name)] = None if value == _NULL_PARTITION else unquote(value)
    return found


def _refuse_unread(file: AnyPath, start: bytes) -> None:
    by_name = suffix_of(file) in _UNREAD_SUFFIXES or file.suffix.lower() in (*_UNREAD_SUFFIXES, *_UNPACKED_SUFFIXES)
    words = foreign_format(start)
    if compression := compression_of(start):
        raise DataError(
            f"{file} is packed by {compression}, and what can be unpacked of it is no part of the log, by its first "
            f"line; fix the file, or move it out of data.log"
        )
    if by_name or words:
        what = f" ({words})" if words else ""
        raise DataError(f"{file} is of a format that is not read{what}; convert it, or move it out of data.log")


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}; fix its permissions") from error
