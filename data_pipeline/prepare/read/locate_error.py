"""Find the place in a file that cannot be read: slow and thorough, for the message of an error alone.

Arrow raises ``ValueError`` for names that are no UTF-8.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.store.paths import AnyPath, parquet_source

_MAX_BYTES = 2**30


def locate_corruption(path: AnyPath) -> str:
    """Such as ``row group 3, column 'item_id'`` or ``line 17: ...``; empty where the place is not found."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PAR1":
            return _chunk_in(path)
        is_plain = path.suffix != ".parquet" and not start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))
        return _quote_in(path) if is_plain and path.stat().st_size <= _MAX_BYTES else ""
    except (OSError, ValueError, pa.ArrowException):
        return ""


def _chunk_in(path: AnyPath) -> str:
    """The first column chunk that Arrow cannot decode."""
    with pq.ParquetFile(parquet_source(path), page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            for name in file.schema_arrow.names:
                try:
                    file.read_row_group(group, columns=[name])
                except (OSError, ValueError, pa.ArrowException):
                    return f"row group {group}, column {name!r}"
    return ""


def _quote_in(path: AnyPath) -> str:
    """The line of the last quote that is opened, where it is never closed; else the first with an odd number."""
    first_odd, opened, is_open = 0, 0, False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.count(b'"') % 2:
                first_odd = first_odd or number
                is_open, opened = not is_open, number
    if is_open:
        return f'line {opened}: a quote (") is opened and never closed; data.source.quote="" reads quotes as text'
    if first_odd:
        return f'line {first_odd}: a quote (") stands alone; data.source.quote="" reads quotes as text'
    return ""
