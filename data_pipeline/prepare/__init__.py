"""Raw logs into a store: typed, cleaned, ordered, counted, fingerprinted, and never half-written."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from configs.errors import ConfigError
from configs.schema import DataConfig
from data_pipeline.manifest import FORMAT_VERSION, Manifest, load_manifest, save_manifest
from data_pipeline.prepare.engine import ENGINE, clean_rows, dense_core, into_buckets, write_histories
from data_pipeline.prepare.sources import find_log_files, open_log
from data_pipeline.prepare.write import new_store

_OPTIONS = (
    *("log", "columns", "source", "event_types", "deduplicate"),
    *("min_user_events", "min_item_events", "max_bad_fraction"),
)


def prepare(config: DataConfig) -> Manifest:
    """Make ``config.store`` from ``config.log``; a finished store from the same files and options is kept as it is.

    Raises ``DataError`` for a log that cannot be used and a folder that cannot be written, and then leaves nothing
    behind and an older store untouched; ``ConfigError`` for options that do not fit together.
    """
    if not config.store:
        raise ConfigError("data.store is empty; set it to the folder that the store shall be written to")
    if config.event_types and not config.columns.event_type:
        raise ConfigError(
            f"data.event_types={config.event_types} needs data.columns.event_type: name the column that holds them"
        )
    paths, store = find_log_files(config.log, config.source), Path(config.store)
    origin = _origin(config, paths)
    if _origin_of(store) == origin:
        return load_manifest(config.store)
    files = open_log(paths, config.columns, config.source)
    with new_store(store) as folder:
        stage = folder / "stage"
        clean = clean_rows(files, config, stage, folder / "quarantine")
        buckets, filtered = into_buckets(clean, config, stage)
        users, items, num_dropped = dense_core(buckets, config)
        if config.min_user_events > 1 or config.min_item_events > 1:
            filtered["min_events"] = num_dropped
        items.write_parquet(folder / "items.parquet")
        histories = write_histories(buckets, users, items, folder / "histories")
        shutil.rmtree(stage)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            num_users=histories.num_users,
            num_items=len(items),
            num_events=histories.num_events,
            first_time_ms=int(items["first_time"].to_numpy().min()),
            last_time_ms=int(items["last_time"].to_numpy().max()),
            columns=["item", "timestamp"],
            engine=ENGINE,
            rows_read=clean.rows_read,
            rows_used=histories.num_events,
            rows_filtered=filtered,
            rows_quarantined=clean.rows_quarantined,
            num_time_ties=histories.num_time_ties,
            longest_history=histories.longest_history,
            fingerprint=histories.fingerprint,
        )
        _check_nothing_is_lost(manifest)
        save_manifest(str(folder), manifest)
        (folder / "prepared_from.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    return manifest


def _origin(config: DataConfig, paths: list[Path]) -> dict[str, object]:
    """What decides a store's content: the log's files as they are now, and the options."""
    options = asdict(config)
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    return {"format_version": FORMAT_VERSION, "options": {key: options[key] for key in _OPTIONS}, "files": files}


def _origin_of(store: Path) -> object:
    """The origin that a finished store was made from; None where there is none to be read."""
    try:
        return json.loads((store / "prepared_from.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_nothing_is_lost(manifest: Manifest) -> None:
    accounted = manifest.rows_used + sum(manifest.rows_filtered.values()) + sum(manifest.rows_quarantined.values())
    assert manifest.rows_read == accounted, f"every row read must be accounted for: {manifest}"
