"""Which of a run's models a verb takes: the one that validation selected, or the final one."""

from configs.errors import ConfigError
from configs.schema import CheckpointUse
from train.checkpoint.checkpointer import DiskCheckpointer
from train.run_dir.checkpoint_folder import BEST, FINAL
from train.run_dir.model_files import MODELS_TO_SHIP


def model_to_ship(checkpointer: DiskCheckpointer, use: CheckpointUse) -> str:
    """The name of the model that a verb hands on, to be given to :meth:`DiskCheckpointer.restore`. Collective.

    With ``auto`` the final model (``train.refit=true``, ``data.split=none``) where there is one, else the best one:
    so ``recommend`` and ``export`` take what the user has asked to ship. Their code is two lines::

        name = model_to_ship(checkpointer, config.checkpoint.use)
        progress = checkpointer.restore(name, state)

    ``progress.refit_on`` says what a final model was trained on; ``summary.json`` has it under ``final_model``.
    Raises :class:`ConfigError` on every rank where the run has no such model.
    """
    return _first(MODELS_TO_SHIP[use], checkpointer, use)


def model_to_evaluate(checkpointer: DiskCheckpointer, use: CheckpointUse) -> str:
    """The same for a verb that asks how good the run is: with ``auto`` the best model, whose test events are held
    out, and the final one of a run that has no other. Collective."""
    return _first((BEST, FINAL) if use is CheckpointUse.AUTO else MODELS_TO_SHIP[use], checkpointer, use)


def _first(wanted: tuple[str, ...], checkpointer: DiskCheckpointer, use: CheckpointUse) -> str:
    has = {name: checkpointer.has_model(name) for name in (BEST, FINAL)}
    for name in wanted:
        if has[name]:
            return name
    there = [name for name, is_there in has.items() if is_there]
    told = f"it has {' and '.join(there)}" if there else "train it until it is validated, or to its end"
    raise ConfigError(f"checkpoint.use={use.value}: {checkpointer.shown} has no {' or '.join(wanted)} model; {told}")
