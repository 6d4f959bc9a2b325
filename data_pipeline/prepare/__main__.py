"""``python -m data_pipeline.prepare key=value...``: make the store of a run's log, and say what is in it."""

import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from configs.errors import ConfigError, exit_code_of
from configs.live_line import LiveLine
from configs.load import load_config
from configs.overrides import key_of
from configs.schema import DataConfig
from configs.schema.source import TimeUnit
from configs.url import is_url
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.store.lease import LeaseError
from data_pipeline.store.manifest import MANIFEST, Manifest
from data_pipeline.store.paths import path_of
from data_pipeline.synthetic import write_log

INTERRUPTED_EXIT_CODE = 130
"""128 + SIGINT, as shells have it."""
POLL_S = 1.0
_MS_OF_1973 = 94_694_400_000
"""Today's seconds, read as milliseconds, lie in January 1970."""


WAIT = "--wait"
"""Before the overrides: what another process prepares is waited for, as by the runs of a sweep that share a store."""


def main(words: Sequence[str]) -> int:
    """Prepare ``data.store`` and print its counts; the exit status: 0, or 2 or 130 after one line on stderr."""
    overrides = [word for word in words if word != WAIT]
    try:
        if WAIT in words:
            return exit_code_of(lambda: _prepare_once(load_config(overrides).data, keys_given(overrides)))
        return exit_code_of(lambda: _prepare_and_tell(load_config(overrides).data, keys_given(overrides)))
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr, flush=True)
        return INTERRUPTED_EXIT_CODE


def keys_given(overrides: Sequence[str]) -> set[str]:
    """The keys below ``data`` that a person has typed: what a store remembers does not take their place."""
    keys = [*map(key_of, overrides)]
    return {key.removeprefix("data.") for key in keys if key.startswith("data.")}


def _prepare_once(config: DataConfig, given: Collection[str]) -> None:
    """Prepare, or wait for whoever does; a store of a synthetic log is looked at again, since choices may differ,
    and so is one that was there before: what is waited for is its next version."""
    is_told, newest = False, path_of(config.store) / MANIFEST
    was_there = newest.is_file()
    while True:
        if is_told and not was_there and config.synthetic.num_users == 0 and newest.is_file():
            print(f"data.store={config.store} was prepared meanwhile", file=sys.stderr, flush=True)
            return
        try:
            _prepare_and_tell(config, given)
            return
        except LeaseError as busy:
            if not is_told:
                print(f"waiting: {busy}", file=sys.stderr, flush=True)
            is_told = True
            time.sleep(POLL_S)


def _prepare_and_tell(config: DataConfig, given: Collection[str]) -> None:
    start = time.perf_counter()
    make_synthetic_log(config)
    line = LiveLine(sys.stderr)
    try:
        manifest = prepare(config, ProgressReporter(line.say, show=line.show if sys.stderr.isatty() else None), given)
    finally:
        line.close()
    print(f"{config.log} -> {config.store}")
    for name, value in table_of(manifest):
        print(f"  {name:<28}{value}")
    print(f"  {'seconds':<28}{time.perf_counter() - start:.2f}")
    if manifest.has_times and config.source.time_unit is TimeUnit.MS and manifest.last_time_ms < _MS_OF_1973:
        print("note: all times are before 1973; if they count seconds, set data.source.time_unit=s")


def make_synthetic_log(config: DataConfig) -> None:
    """Write ``data.log`` by ``data.synthetic`` where that names users, anew where its choices have changed.

    The choices stand beside the log; a log without them is somebody's own and never written over.
    """
    if config.synthetic.num_users == 0 or not config.log:
        return
    if is_url(config.log):
        raise ConfigError(f"data.log={config.log}: a log of data.synthetic is written to a local path")

    told = Path(f"{config.log}.synthetic.json")
    choices = json.dumps(asdict(config.synthetic))
    is_ours = told.is_file()
    is_other = is_ours and told.read_text(encoding="utf-8") != choices
    if is_other or not Path(config.log).exists():
        _write_whole_log(config, replace=is_other)
        told.write_text(choices, encoding="utf-8")


def _write_whole_log(config: DataConfig, *, replace: bool) -> None:
    """Write beside and publish in one step. Of several runs that make the same log at once, the first one's stays."""
    log = Path(config.log)
    partial = log.with_name(f".{log.name}.{os.uname().nodename}.{os.getpid()}.partial")
    try:
        write_log(config.synthetic, str(partial))
        if replace:
            partial.replace(log)
        else:
            with suppress(FileExistsError):
                os.link(partial, log)
    finally:
        partial.unlink(missing_ok=True)


def table_of(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows (name, value) of the table that the command ends with."""
    counts = {
        "users": manifest.num_users,
        "items": manifest.num_items,
        "events": manifest.num_events,
        "longest history": manifest.longest_history,
        "time ties": manifest.num_time_ties,
        "rows read": manifest.rows_read,
        "rows used": manifest.rows_used,
        **{f"filtered {rule}": count for rule, count in manifest.rows_filtered.items()},
        **{f"quarantined {reason}": count for reason, count in manifest.rows_quarantined.items()},
    }
    content = manifest.item_content
    if content is not None:
        counts |= {f"item rows {name.replace('_', ' ')}": count for name, count in content.rows.items()}
        counts["items without content"] = content.num_items_without
        counts |= {f"items without {name}": each.num_missing for name, each in content.features.items()}
    return [*((name, f"{count:,}") for name, count in counts.items()), ("fingerprint", manifest.fingerprint)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
