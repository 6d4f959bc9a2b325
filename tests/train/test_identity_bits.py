"""A damaged record of a run is told in one line that names the file."""

from pathlib import Path

import pytest

from configs.errors import DataError
from configs.load import load_config
from configs.saved_run import CONFIG
from train.run_dir.identity import (
    IDENTITY,
    load_run_config,
    open_run_folder,
    refuse_other_evaluation,
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    overrides = [f"run_dir={tmp_path}", "seed=3"]
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"})
    return tmp_path


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"seed": 3}', b"\xff\xfe", b"[1]"])
def test_a_damaged_identity_is_no_other_run_and_no_traceback(run_dir: Path, damaged: bytes):
    (run_dir / IDENTITY).write_bytes(damaged)
    overrides = [f"run_dir={run_dir}", "seed=3"]
    for read in (
        lambda: open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"}),
        lambda: refuse_other_evaluation(load_config(overrides), {"data.fingerprint": "f1"}),
    ):
        with pytest.raises(DataError, match=f"{run_dir / IDENTITY} is damaged"):
            read()


def test_a_config_with_a_bit_turned_is_refused(run_dir: Path):
    content = (run_dir / CONFIG).read_bytes()
    assert load_run_config(str(run_dir)).seed == 3
    (run_dir / CONFIG).write_bytes(content.replace(b"seed: 3", b"seed: 2"))
    with pytest.raises(DataError, match=f"{run_dir / CONFIG} is damaged"):
        load_run_config(str(run_dir))
