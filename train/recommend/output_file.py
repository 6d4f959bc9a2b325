"""The file of recommendations: its formats, and whether one that is there already is ours."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import ConfigError
from configs.paths import refuse_unwritable
from configs.schema import RunConfig
from configs.schema.recommend import OUTPUT_SUFFIXES, Recommended
from data_pipeline.store.paths import AnyPath, parquet_source, path_of

MARK = {b"shardrec": b"recommend"}
"""In the footer of a Parquet file of ours."""
COLUMNS = {
    Recommended.USERS: ("user_id", "rank", "item_id", "score", "source"),
    Recommended.SIMILAR_ITEMS: ("item_id", "rank", "similar_item_id", "score"),
}
"""The first columns of a file, whatever the log calls its own; columns of the item file follow."""
_START_BYTES = 2**16
_COPY_BYTES = 8 * 2**20


def output_of(config: RunConfig) -> str:
    """The path or URL that is written."""
    names = {Recommended.USERS: "recommendations.parquet", Recommended.SIMILAR_ITEMS: "similar_items.parquet"}
    return config.recommend.output or f"{config.run_dir}/{names[config.recommend.what]}"


def refuse_foreign(config: RunConfig) -> None:
    """Raise :class:`ConfigError` where the output is in the way of something that is not ours."""
    output, wanted = output_of(config), config.recommend
    place = path_of(output)
    for key in ("users", "histories", "allowed_items", "forbidden_items", "item_file"):
        if getattr(wanted, key) and path_of(getattr(wanted, key)) == place:
            raise ConfigError(f"recommend.output={output} is also recommend.{key}; name another file")
    if clashes := set(wanted.item_columns) & set(COLUMNS[wanted.what]):
        raise ConfigError(
            f"recommend.item_columns={wanted.item_columns}: {', '.join(sorted(clashes))} is a column of the output; "
            f"rename it in the item file"
        )
    if isinstance(place, Path) and place.is_dir():
        raise ConfigError(f"recommend.output={output} is a folder; name a file in it")
    if isinstance(place, Path):
        refuse_unwritable(f"recommend.output={output}", place.parent)
    if not wanted.overwrite and place.is_file() and not is_ours(place):
        raise ConfigError(
            f"recommend.output={output} is there, and `shardrec recommend` has not written it; name another file, or "
            f"set recommend.overwrite=true to replace it"
        )


def is_ours(place: AnyPath) -> bool:
    """Whether a file says that it holds recommendations: a mark in a Parquet footer, or our columns as the first."""
    try:
        if place.suffix == ".parquet":
            with pq.ParquetFile(parquet_source(place)) as file:
                return bool((file.schema_arrow.metadata or {}).items() >= MARK.items())
        with place.open("rb") as file:
            first = bytes(file.read(_START_BYTES)).split(b"\n")[0].decode(errors="replace").strip()
        names = first.split(",") if place.suffix == ".csv" else list(json.loads(first))
    except (OSError, pa.ArrowException, ValueError, TypeError, RecursionError):
        return False
    return any(tuple(names[: len(columns)]) == columns for columns in COLUMNS.values())


def suffix_of_output(config: RunConfig) -> str:
    """One of ``OUTPUT_SUFFIXES``."""
    return next(suffix for suffix in OUTPUT_SUFFIXES if output_of(config).endswith(suffix))


def write_rows(rows: pl.DataFrame, path: Path) -> None:
    """Some rows as a part, which :func:`join_parts` puts together: CSV has no header there."""
    match path.suffix:
        case ".parquet":
            pq.write_table(_table_of(rows), path, compression="zstd")
        case ".csv":
            rows.write_csv(path, include_header=False)
        case _:
            rows.write_ndjson(path)


def join_parts(parts: Sequence[Path], names: Sequence[str], path: Path) -> None:
    """Write all ``parts``, of which there is at least one, as one file; holds a part in memory."""
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, pq.read_schema(parts[0]), compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, use_threads=False))
        return
    with path.open("wb") as whole:
        if path.suffix == ".csv":
            whole.write(pl.DataFrame(schema=dict.fromkeys(names, pl.String)).write_csv().encode())
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole, _COPY_BYTES)


def _table_of(rows: pl.DataFrame) -> pa.Table:
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.replace_schema_metadata(MARK)
