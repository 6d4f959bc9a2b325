"""The parts of a tensor are dealt out once and found again under any other cut of it."""

import itertools
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors.torch import load_file

from configs.errors import DataError
from train.checkpoint.layout import StoredPart, StoredTensor, fill, key_of, misfit
from train.checkpoint.safetensors_file import DTYPE_NAMES, write_tensors
from train.checkpoint.state_dict import RunTensor

WHOLE = torch.arange(60, dtype=torch.float32).view(10, 6)
CUTS = {
    "whole": [(slice(0, 10), slice(0, 6))],
    "rows": [(slice(0, 4), slice(0, 6)), (slice(4, 8), slice(0, 6)), (slice(8, 10), slice(0, 6))],
    "columns": [(slice(0, 10), slice(0, 4)), (slice(0, 10), slice(4, 6))],
    "blocks": [(rows, columns) for rows in (slice(0, 5), slice(5, 10)) for columns in (slice(0, 2), slice(2, 6))],
}


def stored_under(cut: str, folder: Path) -> StoredTensor:
    """``WHOLE`` in one file a part."""
    parts = []
    for number, (rows, columns) in enumerate(CUTS[cut]):
        place = (rows.start, columns.start)
        write_tensors(folder / str(number), {key_of("t", place): WHOLE[rows, columns]}, lambda: None)
        parts.append(StoredPart(str(number), key_of("t", place), place, tuple(WHOLE[rows, columns].shape)))
    return StoredTensor("F32", tuple(WHOLE.shape), parts)


@pytest.mark.parametrize(("written", "read"), itertools.product(CUTS, CUTS))
def test_a_tensor_written_under_one_cut_is_read_under_any_other(tmp_path: Path, written: str, read: str):
    index = {"t": stored_under(written, tmp_path)}
    for rows, columns in CUTS[read]:
        part = torch.full_like(WHOLE[rows, columns], -1)
        fill([RunTensor("t", (10, 6), torch.float32, [(part, (rows.start, columns.start))])], index, tmp_path)
        assert torch.equal(part, WHOLE[rows, columns])


def test_a_part_that_no_file_has_is_an_error(tmp_path: Path):
    stored = stored_under("rows", tmp_path)
    stored.parts.pop()
    with pytest.raises(DataError, match="48 of the 60 values of t"):
        fill([RunTensor("t", (10, 6), torch.float32, [(torch.empty(10, 6), (0, 0))])], {"t": stored}, tmp_path)


def test_another_shape_is_a_misfit_that_names_both(tmp_path: Path):
    tensors = [RunTensor("t", (9, 6), torch.float32), RunTensor("u", (1,), torch.float32)]
    assert misfit(tensors, {"t": stored_under("whole", tmp_path)}) == [
        "t is [10, 6] in it and [9, 6] in this model",
        "u is not in it",
    ]


def test_the_file_is_what_any_tool_reads(tmp_path: Path):
    """Every type, no dims, no values, a view that is not contiguous; and the size and sum are those of the file."""
    tensors = {str(dtype): torch.arange(7).to(dtype) for dtype in DTYPE_NAMES}
    tensors |= {"scalar": torch.tensor(3.5), "none": torch.zeros(0, 4), "view": WHOLE.t()[1:3]}
    size, total = write_tensors(tmp_path / "f", tensors, lambda: None)
    content = (tmp_path / "f").read_bytes()
    assert (size, total) == (len(content), xxhash.xxh3_64(content).hexdigest())
    found = load_file(tmp_path / "f")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
