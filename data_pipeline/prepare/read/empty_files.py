"""Files of a log without a row: they are left out, whatever columns they claim to have."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.formats import file_layout_of
from data_pipeline.prepare.read.text_blocks import blocks_of, encoding_of
from data_pipeline.store.paths import AnyPath, parquet_source


def is_empty(path: AnyPath, source: SourceConfig) -> bool:
    """Whether ``path`` holds no row: no byte, a footer of Parquet that counts none, no line after the header."""
    if path.stat().st_size == 0:
        return True
    layout = file_layout_of(path, source)
    if layout is Layout.PARQUET:
        try:
            return bool(pq.read_metadata(parquet_source(path)).num_rows == 0)
        except (OSError, pa.ArrowException):
            return False  # whoever reads it says what is wrong
    assert isinstance(path, Path), "text of an object store is read from a local copy"
    num_lines = 0
    for block in blocks_of(path, encoding_of(path, source.encoding), mends_returns=True):
        num_lines += sum(bool(line.strip()) for line in block[:65536].split(b"\n"))
        if num_lines > 1:
            return False
    return num_lines <= int(layout is Layout.DELIMITED and not source.header)
