"""``python -m train.export run_dir=R``: a run's model as a folder that needs nothing of this project."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from configs.errors import exit_code_of
from configs.schema import RefitOn, RunConfig
from data_pipeline.store.manifest import Manifest, identity_digests
from data_pipeline.store.paths import AnyPath, path_of
from train.build import build_state
from train.checkpoint.model_to_ship import model_to_ship
from train.checkpoint.reading import checkpoints_of
from train.distributed.collectives import (
    ProcessGroupCollectives,
    from_rank_zero,
    on_rank_zero,
    process_group,
)
from train.distributed.heartbeat import heartbeating
from train.evaluation.preflight import evaluated_run
from train.export.card import Shipped, quality_line, write_card
from train.export.compiled import trial_inputs, write_compiled, write_onnx
from train.export.examples import make_examples, write_examples
from train.export.exported_model import ExportedModel
from train.export.faiss_index import write_index
from train.export.id_maps import write_items, write_users
from train.export.measure import measure
from train.export.mlflow_files import write_mlflow
from train.export.output import new_output, output_of
from train.export.preflight import refuse_no_program
from train.export.program import (
    ENCODER,
    Inputs,
    encoder_program,
    load_program,
    made_up_inputs,
    program_bytes,
)
from train.export.vectors import recommender_of, write_tables
from train.run_dir.identity import refuse_other_evaluation
from train.run_dir.store_version import at_version, manifest_of_run
from train.state import TrainState
from train.supervision.watchdog import Watchdog

Heartbeat = Callable[[], None]


def export(config: RunConfig) -> None:
    """Write the model to ship of ``config.run_dir`` to ``config.export.output``. Collective."""
    with process_group(config.hardware) as device, Watchdog(config.hardware) as watchdog:
        manifest = manifest_of_run(config, path_of(config.run_dir))
        config = at_version(config, manifest.version)
        refuse_other_evaluation(config, identity_digests(manifest))
        refuse_no_program(config)
        output = from_rank_zero(lambda: output_of(config))
        state = build_state(config, manifest, 1, ProcessGroupCollectives(), device, held_out=None)
        with checkpoints_of(config, watchdog.heartbeat) as checkpointer:
            model = Shipped.of(model_to_ship(checkpointer, config.checkpoint.use), checkpointer, state)
        with _on_rank_zero(output, config, watchdog.heartbeat) as partial:
            told = _write(partial, config, manifest, state, model, watchdog.heartbeat)
        if state.collectives.rank == 0:
            print(f"{output}: {told}", flush=True)


@contextmanager
def _on_rank_zero(output: AnyPath, config: RunConfig, heartbeat: Heartbeat) -> Iterator[Path | None]:
    """The folder that rank 0 writes, which takes its place when the block ends; None on the others. Collective."""
    with ExitStack() as stack:
        entered: list[Path] = []
        on_rank_zero(lambda: entered.append(stack.enter_context(new_output(output, config, heartbeat))))
        yield entered[0] if entered else None


def _write(
    folder: Path | None,
    config: RunConfig,
    manifest: Manifest,
    state: TrainState,
    model: Shipped,
    heartbeat: Heartbeat,
) -> str:
    """Every file of the export, into the ``folder`` of rank 0; on rank 0, what to tell of it. Collective."""
    recommender = recommender_of(state)
    with heartbeating(heartbeat):  # the other ranks wait for the program
        content = from_rank_zero(lambda: program_bytes(encoder_program(recommender, config.data.max_history)))
    write_tables(folder, state, manifest, config.export.dtype, heartbeat)
    exported = ExportedModel(recommender, load_program(content), config.export.dtype)
    measured = measure(exported, state, config, manifest, is_held_out=model.trained_on != RefitOn.EVERYTHING.value)
    examples = make_examples(exported, state, config, manifest)
    inputs = made_up_inputs(recommender, num_histories=1, length=1)

    def write_rest() -> None:
        assert folder is not None, "on rank 0"
        (folder / ENCODER).write_bytes(content)
        write_items(folder, config.data.store, manifest)
        if "user_vectors" in inputs:
            write_users(folder, config.data.store, manifest)
        write_examples(folder, examples)
        extras = _extras(folder, config, content, inputs)
        if config.export.mlflow:
            extras["mlflow"] = write_mlflow(folder, config, manifest, examples)
        write_card(folder, config, manifest, inputs, model, measured, extras)

    with heartbeating(heartbeat):
        on_rank_zero(write_rest)
    return quality_line(measured)


def _extras(folder: Path, config: RunConfig, content: bytes, inputs: Inputs) -> dict[str, Any]:
    """What was asked for beside, and what ``model.json`` says of each. On rank 0."""
    asked, found = config.export, dict[str, Any]()
    program = torch.export.load(io.BytesIO(content))
    if asked.onnx or asked.aot_inductor:
        trials = trial_inputs(folder, inputs, config.data.max_history)
        if asked.onnx:
            found["onnx"] = write_onnx(folder, program, trials)
        if asked.aot_inductor:
            found["aot_inductor"] = write_compiled(folder, program, trials)
    if asked.faiss:
        found["faiss"] = write_index(folder, config, program.module())
    return found


def main(overrides: Sequence[str]) -> int:
    """``overrides`` name the ``run_dir`` and what may differ from the run's own config; 0, or 2 after one line."""
    return exit_code_of(lambda: export(evaluated_run(overrides)))
