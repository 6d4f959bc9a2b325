"""Which row of a table is which raw id; see docs/ids.md."""

import json
from collections.abc import Iterable

from configs.errors import DataError

RawId = int | str
KIND_WORDS: dict[type, str] = {int: "whole numbers", str: "texts"}


class IdMap:
    """Rows by raw id, and back. All ids of a map are of one ``kind``: ``int`` or ``str``."""

    def __init__(self, raw_ids: list[RawId], shown: str) -> None:
        """Raises :class:`DataError`, which names ``shown``, for ids that are no map."""
        self.raw_ids = raw_ids
        self.row_of: dict[RawId, int] = {raw: row for row, raw in enumerate(raw_ids)}
        kinds = set(map(type, raw_ids))
        if len(kinds) != 1 or not kinds <= set(KIND_WORDS) or len(self.row_of) != len(raw_ids):
            raise DataError(
                f"{shown} is damaged: its ids are not distinct, or of several kinds; export the run again"
            )
        self.kind: type = kinds.pop()

    def __len__(self) -> int:
        return len(self.raw_ids)

    def rows_of(self, raw_ids: Iterable[RawId]) -> list[int]:
        """The rows of those that are known, in their order."""
        return [row for row in map(self.row_of.get, raw_ids) if row is not None]


def id_map_of(content: bytes, shown: str) -> IdMap:
    """Of JSON lines: line n is the raw id of row n. Raises :class:`DataError`."""
    try:
        raw_ids = json.loads(b"[" + b",".join(content.splitlines()) + b"]")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown} is damaged: it is not JSON lines ({error}); export the run again") from error
    if any(isinstance(each, list | dict) for each in raw_ids):
        raise DataError(f"{shown} is damaged: it is not a line for each id; export the run again")
    return IdMap(raw_ids, shown)
