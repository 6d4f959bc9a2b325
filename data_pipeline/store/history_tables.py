"""The histories of a store as tables, for who wants them as they lie there."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from data_pipeline.store.file_sums import check_sum
from data_pipeline.store.manifest import HISTORIES, Manifest, paths_of
from data_pipeline.store.paths import parquet_source


def history_tables(store: str, manifest: Manifest) -> Iterator[pa.Table]:
    """The row groups of the histories in order, a row for each user: all columns.

    Raises :class:`DataError` for a file that is damaged or not there.
    """
    for path, expected in paths_of(store, manifest, HISTORIES):
        try:
            check_sum(path, expected)
            with pq.ParquetFile(parquet_source(path), page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error
