"""Where an export goes: a folder of this machine, or a URL."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from configs.nesting import refuse_nested
from configs.paths import refuse_unwritable
from configs.run_dir import local_run_dir
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of
from train.export.folder import new_folder, refuse_foreign, refuse_foreign_beside
from train.export.remote_folder import new_remote_folder, refuse_foreign_objects, working_folder

_KEY = "export.output"


def output_of(config: RunConfig) -> AnyPath:
    """The folder or URL that ``config`` exports to; raises :class:`ConfigError` where that may not be one, also where
    it holds what we did not write.

    Changes nothing.
    """
    output = path_of(config.export.output or f"{config.run_dir}/export")
    if isinstance(output, Path):
        output = Path(os.path.realpath(output))
    refuse_nested({_KEY: str(output), "data.store": config.data.store})
    refuse_nested({_KEY: str(output), "data.log": config.data.log})
    checkpoints = local_run_dir(config) if not is_url(config.run_dir) else path_of(config.run_dir)
    refuse_nested({_KEY: str(output), "the folder of checkpoints": str(checkpoints / "checkpoints")})
    if isinstance(output, ObjectPath):
        refuse_foreign_objects(output)
        _refuse_folder(working_folder(config, output), f"{_KEY}={output}, which is made on this machine first,")
    else:
        _refuse_folder(output, f"{_KEY}={output}")
    return output


def new_output(output: AnyPath, config: RunConfig, heartbeat: Callable[[], None]) -> AbstractContextManager[Path]:
    """A folder of this machine that becomes ``output`` when the block ends without an error."""
    if isinstance(output, ObjectPath):
        return new_remote_folder(output, config, heartbeat)
    return new_folder(output)


def _refuse_folder(folder: Path, shown: str) -> None:
    refuse_foreign(folder)
    refuse_foreign_beside(folder)
    refuse_unwritable(shown, folder.parent)
