"""``model.json`` and ``README.md``: what is in an export, how to use it, and how good it is."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.atomic_files import parse_json_with_sum, write_json
from configs.load import variants_of
from configs.schema import ExportDtype, RunConfig
from data_pipeline.prepare.append import with_options_of_store
from data_pipeline.store.features import StoredFeature, chosen_features
from data_pipeline.store.manifest import Manifest, identity_digests
from data_pipeline.store.paths import path_of
from train.checkpoint.checkpointer import DiskCheckpointer
from train.export.folder import FORMAT, FORMAT_VERSION, MODEL, sums_of
from train.export.program import ENCODER, Inputs, described_inputs
from train.export.table_file import SCALE
from train.run_dir.identity import saved_identity
from train.state import TrainState

SUMMARY = "summary.json"
README = """# A sequence recommender

Exported by Shardrec. Nothing of Shardrec is needed to use it, and no file holds a pickle.

```sh
pip install torch=={torch} safetensors
python example.py
```

| file | what it is |
|---|---|
| `model.json` | inputs of the encoder, preprocessing, vocabularies of features, quality, SHA-256 of every file |
| `encoder.pt2` | the encoder: `torch.export.load("encoder.pt2").module()`, called with keywords, on a CPU |
| `item_vectors.safetensors` | the vector of each item, {dtype}; a row of int8 is multiplied by its `scale` |
| `items.parquet`, `items.jsonl` | which row is which item: line n of `items.jsonl` is the raw id of row n |
{more}| `example.py`, `example.json` | recommends to {examples} users, and what the run recommends to them |

1. Take the user's last {max_history} known items, the oldest first, and look their vectors up.
2. `encoder(item_vectors=[B, L, {width}], lengths=[B], ...)` returns a query for each history, `[B, {width}]`. Pad
   shorter histories at their end; what the padding holds changes nothing. Each history needs one event at least.
3. The score of an item is the dot product of its vector with the query. {seen}

{quality}
"""


@dataclass(frozen=True, slots=True)
class Shipped:
    """Which model of a run an export holds."""

    checkpoint: str
    """``best`` or ``final``."""
    step: int
    trained_on: str
    """Of a final model, as ``train.refit_on``; empty of the best one, which was trained on the training events."""

    @classmethod
    def of(cls, name: str, checkpointer: DiskCheckpointer, state: TrainState) -> "Shipped":
        """Restore the checkpoint ``name`` into ``state``, and say which it is. Collective."""
        progress = checkpointer.restore(name, state)
        return cls(name, state.step, progress.refit_on)


def write_card(
    folder: Path,
    config: RunConfig,
    manifest: Manifest,
    inputs: Inputs,
    model: Shipped,
    measured: dict[str, Any],
    extras: dict[str, Any],
) -> None:
    """Write both into ``folder``, whose other files are there; ``model.json`` is the last file.

    ``measured`` is the quality of the run's model and of the exported one, ``extras`` what was asked for beside.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": {**variants_of(config), "width": config.model.embedding_dim},
        "program": {
            "file": ENCODER,
            "call": "torch.export.load(file).module()(**inputs)",
            "inputs": described_inputs(inputs),
            "output": {"dtype": "float32", "shape": ["B", config.model.embedding_dim]},
        },
        "tables": _tables(config, manifest, inputs),
        "preprocessing": {
            "max_history": config.data.max_history,
            "order": "oldest event first, the last max_history of them",
            "padding": "at the end",
            "unknown_items": "left out of the history",
            "leave_out_seen": config.evaluation.leave_out_seen,
        },
        "features": _features(config, manifest),
        "data": {**_data_digests(manifest), "store_version": manifest.version},
        "run": {**asdict(model), "identity": saved_identity(path_of(config.run_dir), config.run_dir)},
        "quality": {**measured, **_summary_of(config)},
        **extras,
        "versions": {"shardrec": version("shardrec"), "torch": version("torch")},
    }
    (folder / "README.md").write_text(_readme(config, manifest, inputs, measured, extras), encoding="utf-8")
    write_json(folder / MODEL, {**document, "files": sums_of(folder)})


def _summary_of(config: RunConfig) -> dict[str, Any]:
    """What the run's ``summary.json`` says of its best model, and of its final one where it has one; raises
    :class:`DataError` where it is damaged."""
    path = path_of(config.run_dir) / SUMMARY
    summary = parse_json_with_sum(path.read_bytes(), path) if path.is_file() else {}
    return {"summary": summary.get("quality"), "final_model": summary.get("final_model")}


def _tables(config: RunConfig, manifest: Manifest, inputs: Inputs) -> dict[str, Any]:
    sizes = {"item": manifest.num_items} | ({"user": manifest.num_users} if "user_vectors" in inputs else {})
    dtype = config.export.dtype
    return {
        name: {
            "file": f"{name}_vectors.safetensors",
            "tensor": f"{name}_vectors",
            "dtype": dtype.value,
            "scale": SCALE if dtype is ExportDtype.INT8 else None,
            "shape": [rows, config.model.embedding_dim],
            "ids": f"{name}s.jsonl",
        }
        for name, rows in sizes.items()
    }


def _features(config: RunConfig, manifest: Manifest) -> dict[str, Any]:
    """How raw values become what the program takes: docs/features.md has the rules."""
    chosen = chosen_features(config.data.store, manifest.features, config.model.event_features)
    data = with_options_of_store(config.data, manifest) if chosen else config.data
    return {name: {**_feature(feature), "missing_words": data.source.missing} for name, feature in chosen.items()}


def _feature(feature: StoredFeature) -> dict[str, Any]:
    shift, scale = feature.shift_and_scale
    return {**asdict(feature), "num_codes": feature.num_codes, "shift": shift, "scale": scale}


def _data_digests(manifest: Manifest) -> dict[str, str]:
    return {key.removeprefix("data."): digest for key, digest in identity_digests(manifest).items()}


def _readme(
    config: RunConfig, manifest: Manifest, inputs: Inputs, measured: dict[str, Any], extras: dict[str, Any]
) -> str:
    rows = []
    if "user_vectors" in inputs:
        rows += [
            "| `user_vectors.safetensors` | the vector of each user, an input of the encoder |",
            "| `users.parquet`, `users.jsonl` | which row is which user |",
        ]
    if "features" in inputs:
        rows += ["| `feature_vectors.safetensors` | the vectors of features; the encoder holds them too |"]
    rows += [f"| `{extra['file']}` | {extra['what']} |" for extra in extras.values()]
    return README.format(
        torch=version("torch").partition("+")[0],
        dtype=config.export.dtype.value,
        more="".join(f"{row}\n" for row in rows),
        examples=config.export.examples,
        max_history=config.data.max_history,
        width=config.model.embedding_dim,
        seen="Items that the user has seen are no candidates." if config.evaluation.leave_out_seen else "",
        quality=f"{quality_line(measured)}.",
    )


def quality_line(measured: dict[str, Any]) -> str:
    """A sentence of the quality of the run's model and of the exported one."""
    if not measured:
        return "no event was held out to measure its quality"
    run, exported = measured["run"]["ndcg@10"], measured["exported"]["ndcg@10"]
    trained = "" if measured["is_held_out"] else ", which was trained on these events: only the difference counts"
    return (
        f"NDCG@10 over {measured['users']:,} users, each ranked against the whole catalogue: {exported:.4f} with "
        f"these files, {run:.4f} in the run{trained}"
    )
