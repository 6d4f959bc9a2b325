"""``python -m train.export.preflight run_dir=R``: what would end an export at once, before ranks are started.

Without torch: it takes a moment, and the message is there once instead of once a rank.
"""

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from configs.errors import ConfigError, exit_code_of
from configs.process_exit import exit_at_once
from configs.schema import RunConfig
from data_pipeline.store.manifest import identity_digests
from data_pipeline.store.paths import path_of
from train.evaluation.preflight import evaluated_run
from train.export.output import output_of
from train.run_dir.identity import refuse_other_evaluation
from train.run_dir.model_files import refuse_without_model
from train.run_dir.store_version import manifest_of_run

NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "faiss": ("faiss",), "mlflow": ("mlflow", "pandas")}
"""The modules that each extra brings."""


def check(config: RunConfig) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` where ``config`` cannot be exported. Changes nothing."""
    refuse_other_evaluation(config, identity_digests(manifest_of_run(config, path_of(config.run_dir))))
    refuse_no_program(config)
    _refuse_missing_extras(config)
    refuse_without_model(config)
    output_of(config)


def refuse_no_program(config: RunConfig) -> None:
    """Raise :class:`ConfigError` for a run whose encoder cannot be a program of its own."""
    if why := config.model.why_no_export:
        raise ConfigError(
            f"run_dir={config.run_dir} cannot be exported: {why}; `shardrec recommend` writes its lists, or train a "
            f"run with another model (docs/models.md)"
        )


def _refuse_missing_extras(config: RunConfig) -> None:
    for extra, modules in NEEDS.items():
        if getattr(config.export, extra) and any(find_spec(module) is None for module in modules):
            raise ConfigError(f"export.{extra}=true needs {' and '.join(modules)}: pip install 'shardrec[{extra}]'")
    if config.export.aot_inductor and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise ConfigError(
            "export.aot_inductor=true needs a C++ compiler, and there is no g++, clang++ or c++; install one, or "
            "leave the key out"
        )


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: check(evaluated_run(overrides)))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
