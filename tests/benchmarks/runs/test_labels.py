"""A run's label says what differs, no more, and no two runs have the same."""

from pathlib import Path

from benchmarks.runs.labels import labels_of
from benchmarks.runs.recorded_run import read_run
from recorded import write_run


def labels(folder: Path, *words: list[str]) -> list[str]:
    return labels_of([read_run(write_run(folder / f"r{number}", each)) for number, each in enumerate(words)])


def test_a_label_names_what_differs(tmp_path: Path) -> None:
    found = labels(tmp_path, ["model.embedding_dim=32"], ["loss=gbce"], ["loss=gbce", "seed=7"])
    assert found == [
        "full_softmax embedding_dim=32 seed=0",
        "gbce embedding_dim=64 seed=0",
        "gbce embedding_dim=64 seed=7",
    ]


def test_what_follows_from_a_typed_key_is_not_said_again(tmp_path: Path) -> None:
    assert labels(tmp_path, ["model.embedding_dim=32"], ["model.embedding_dim=16"]) == [
        "embedding_dim=32",
        "embedding_dim=16",
    ]


def test_presets_are_told_by_their_names(tmp_path: Path) -> None:
    assert labels(tmp_path, ["experiment=ml1m_sasrec"], ["experiment=beauty_sasrec"]) == [
        "ml1m_sasrec",
        "beauty_sasrec",
    ]


def test_equal_runs_and_a_run_alone_are_called_by_their_folders(tmp_path: Path) -> None:
    assert labels(tmp_path / "one", []) == ["r0"]
    assert labels(tmp_path / "x", [], ["hardware.num_threads=1"]) == ["r0", "r1"]
    found = labels_of([read_run(str(tmp_path / name / "r0")) for name in ("one", "x")])
    assert found == [str(tmp_path / name / "r0") for name in ("one", "x")]


def test_keys_of_one_name_are_written_out(tmp_path: Path) -> None:
    found = labels(
        tmp_path, ["model.precision=fp32"], ["model.precision=bf16", "loss.precision=bf16"], ["loss.precision=bf16"]
    )
    assert found[1] == "model.precision=bf16 loss.precision=bf16"
