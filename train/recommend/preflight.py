"""``python -m train.recommend.preflight run_dir=R ...``: what would end it at once, before ranks are started."""

import sys
from collections.abc import Sequence

from configs.errors import exit_code_of
from configs.schema import RunConfig
from data_pipeline.store.paths import path_of
from train.recommend.request import recommended_run, request_of
from train.run_dir.model_files import refuse_without_model
from train.run_dir.store_version import at_version, manifest_of_run


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr; writes nothing."""
    return exit_code_of(lambda: _check(recommended_run(overrides)))


def _check(config: RunConfig) -> None:
    refuse_without_model(config)
    manifest = manifest_of_run(config, path_of(config.run_dir))
    request_of(at_version(config, manifest.version), manifest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
