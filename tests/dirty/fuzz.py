"""Prepares mutated files, one after another: ``python -m dirty.fuzz FOLDER FIRST_SEED NUM_SEEDS``.

A program of its own, so that a crash of a native reader ends it and not the tests. Prints, for each seed, a line
``seed`` before and a word after it: ``prepared``, ``refused``.
"""

import gzip
import random
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from configs.errors import DataError
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import Manifest
from dirty.case import START
from dirty.parquet import parquet_bytes

CODECS = ("zstd", "snappy", "none")
_FOOTER_BYTES = 1500


def whole_files() -> dict[str, bytes]:
    """Sound files of each layout by name: row groups, dictionaries and statistics; quotes; whole and compressed."""
    draw = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "user_id": draw.integers(0, 50, 900),
            "item_id": [f"item-{item}" for item in draw.integers(0, 90, 900)],
            "timestamp": draw.integers(START, START + 10**9, 900),
        }
    )
    plain, lines = table.write_csv().encode(), table.write_ndjson().encode()
    files = {f"{codec}.parquet": parquet_bytes(table, row_group_size=300, compression=codec) for codec in CODECS}
    return files | {
        "plain.csv": plain,
        "quoted.csv": table.write_csv(quote_style="always").encode(),
        "lines.jsonl": lines,
        "plain.csv.zst": pa.Codec("zstd").compress(plain, asbytes=True),
        "lines.jsonl.gz": gzip.compress(lines),
    }


def mutated(data: bytes, seed: int) -> bytes:
    """``data`` with a few bytes changed, left out or put in, every other one of them in the footer."""
    draw, out = random.Random(seed), bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        if not out:
            break
        first = max(0, len(out) - _FOOTER_BYTES) if draw.random() < 0.5 else 0
        place = draw.randrange(first, len(out))
        match draw.randrange(8):
            case 0:
                del out[place : place + draw.randrange(1, 50)]
            case 1:
                out[place:place] = draw.randbytes(draw.randrange(1, 20))
            case 2:
                del out[place:]
                out += b"\0" * 8
            case _:
                out[place] = draw.randrange(256)
    return bytes(out)


def outcome_of(log: Path, store: Path) -> str:
    """``prepared`` where all rows are accounted for, ``refused`` where one line says why."""
    try:
        manifest = prepare(DataConfig(log=str(log), store=str(store), max_bad_fraction=1.0))
    except DataError as error:
        is_clear = any(words in str(error) for words in (log.name, "rows are broken", "holds no rows"))
        return "refused" if is_clear else f"refused without a reason: {error}"
    assert manifest.rows_read == accounted(manifest), manifest
    return "prepared"


def accounted(manifest: Manifest) -> int:
    """Rows used, filtered and quarantined."""
    return manifest.rows_used + sum(manifest.rows_filtered.values()) + sum(manifest.rows_quarantined.values())


def main(folder: Path, first_seed: int, num_seeds: int) -> None:
    """Prepare the file of each seed."""
    whole = list(whole_files().items())
    for seed in range(first_seed, first_seed + num_seeds):
        print(seed, end=" ", flush=True)
        name, data = whole[seed % len(whole)]
        log = folder / name
        log.write_bytes(mutated(data, seed))
        print(outcome_of(log, folder / "store"), flush=True)
        log.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
