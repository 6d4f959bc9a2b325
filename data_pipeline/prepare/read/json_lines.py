"""JSON lines as a scan of strings: a row an object, or a row an event of a list of them that an object holds."""

import ast
import json
from pathlib import Path
from typing import Any

import polars as pl

from configs.errors import DataError
from configs.schema.source import SourceConfig
from data_pipeline.prepare.read.delimited import LINE_COLUMN, scan_lines
from data_pipeline.prepare.read.missing_column import missing_column

_IS_JSON = "raw_is_json"
_ROWS_FOR_NAMES = 1000


def scan_json(path: Path, names: dict[str, str], source: SourceConfig) -> tuple[pl.LazyFrame, pl.Expr]:
    """Rows with the columns of ``names`` as strings, and why a row is broken as a whole, or null."""
    lines = scan_lines(path, source)
    _check_keys(path, lines.head(_ROWS_FOR_NAMES).collect()[LINE_COLUMN].to_list(), names, source.nested_events)
    inner = [name for key, name in names.items() if key != "user"] if source.nested_events else []
    fields: dict[str, pl.DataType] = {name: pl.String() for name in names.values() if name not in inner}
    if source.nested_events:
        events = pl.List(pl.Struct({name: pl.String() for name in inner}))
        fields[source.nested_events] = events
    dtype = pl.Struct(fields)
    decoded = pl.col(LINE_COLUMN).map_batches(
        lambda series: decoded_objects(series, dtype), return_dtype=dtype, is_elementwise=True
    )
    rows = lines.with_columns(decoded.alias(_IS_JSON)).with_columns(
        pl.col(_IS_JSON).struct.unnest(), pl.col(_IS_JSON).is_not_null()
    )
    if source.nested_events:
        rows = rows.explode(source.nested_events, empty_as_null=False, keep_nulls=True).unnest(source.nested_events)
    return rows, pl.when(~pl.col(_IS_JSON)).then(pl.lit("bad_json"))


def decoded_objects(lines: pl.Series, dtype: pl.Struct) -> pl.Series:
    """The objects of ``lines`` as ``dtype``; null for a line that is no such object, found by halving.

    Polars fails as a whole where one line is broken. One pass costs a third of looking up each key by JSON path.
    """
    if len(lines) == 0:
        return pl.Series([], dtype=dtype)
    try:
        return lines.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        if len(lines) == 1:
            return pl.Series([None], dtype=dtype)
    half = len(lines) // 2
    return pl.concat([decoded_objects(lines[:half], dtype), decoded_objects(lines[half:], dtype)])


def _check_keys(path: Path, lines: list[str], names: dict[str, str], nested: str) -> None:
    """Refuse JSON in another form than an object a line, and lines none of which has a key that is needed."""
    found = [entry for line in lines if isinstance(entry := json_of(line), dict)]
    is_array = bool(lines) and lines[0].lstrip().startswith("[") and 2 * len(found) < len(lines)
    if lines and (not found or is_array):
        _refuse_other_forms(path, lines)
    if found and isinstance(found[0].get(names["user"]), dict | list):
        raise DataError(
            f"{path} holds a JSON object of whole columns, as pandas writes it by default; write one object a line: "
            f"frame.to_json('lines.jsonl', orient='records', lines=True)"
        )
    keys = dict.fromkeys(key for entry in found for key in entry)
    if nested and found and nested not in keys:
        raise DataError(
            f"{path} has no key {nested!r} (data.source.nested_events); its keys are {', '.join(keys)}; "
            f"set data.source.nested_events to one of them, or to nothing"
        )
    if nested:
        names = {"user": names["user"]}
    elif len(found) == 1 and (inside := _key_of_events(found[0], names["user"])):
        raise DataError(
            f"{path} holds one JSON object, whose {inside!r} is a list of events; write one object a line: "
            f"jq -c '.[\"{inside}\"][]' {path.name} > lines.jsonl"
        )
    for key, name in names.items():
        if found and name not in keys:
            raise missing_column(path, key, name, list(keys))


def _key_of_events(document: dict[str, Any], user: str) -> str:
    """The key of a list of objects that have the key ``user``, where ``document`` itself has none; else empty."""
    if user in document:
        return ""
    lists = ((key, value[0]) for key, value in document.items() if isinstance(value, list) and value)
    return next((key for key, first in lists if isinstance(first, dict) and user in first), "")


def _refuse_other_forms(path: Path, lines: list[str]) -> None:
    """Name the form of a file whose first lines hold no object, and the command that mends it."""
    first = lines[0].strip()
    makes_lines = f"write one object a line: jq -c {{}} {path.name} > lines.jsonl"
    if first.startswith("[") and isinstance(json_of(first), list) and len(lines) > 1:
        raise DataError(
            f"{path} holds a JSON array in each line, whose values have no names; write objects, or a delimited file"
        )
    if first.startswith("["):
        raise DataError(f"{path} holds a JSON array; {makes_lines.format(repr('.[]'))}")
    if first.startswith("{") and _holds_objects("\n".join(lines)):
        raise DataError(f"{path} holds JSON objects over several lines (pretty-printed); {makes_lines.format('.')}")
    if first.startswith("{") and _is_python(first):
        raise DataError(
            f"{path} holds Python dicts (such as {first[:40]}...), not JSON; write one JSON object a line: "
            f'python -c "import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]" '
            f"< {path.name} > lines.jsonl"
        )


def _holds_objects(text: str) -> bool:
    try:
        return isinstance(json.JSONDecoder().raw_decode(text)[0], dict)
    except (ValueError, RecursionError):
        return False


def _is_python(line: str) -> bool:
    try:
        return isinstance(ast.literal_eval(line), dict)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def json_of(text: bytes | str) -> Any:
    """The value of ``text``; None where it is none, or nested deeper than Python follows."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
