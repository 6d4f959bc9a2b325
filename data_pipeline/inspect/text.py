"""A summary as plain characters, for a terminal of 80 columns."""

from collections.abc import Callable
from itertools import pairwise

from configs.schema.features import FeatureType
from data_pipeline.inspect.samples import SampleHistory
from data_pipeline.inspect.summary import Distribution, StoreSummary, moment_of
from data_pipeline.store.features import StoredFeature
from data_pipeline.store.item_content import StoredItemFeature

_BAR_WIDTH = 40
_LABEL_WIDTH = 34
_TITLE_WIDTH = 60


def text_of(store: str, summary: StoreSummary, samples: list[SampleHistory]) -> str:
    """All that is known of the store, in sections."""
    lengths = bars_of(summary.history_length, _whole_range)
    popularity = bars_of(summary.item_popularity, _whole_range)
    over_time = bars_of(summary.events_over_time, lambda low, _: moment_of(low))
    sections = [
        (f"store {store}", _rows(_contents(summary))),
        ("rows of the log", _rows(_accounts(summary))),
        *([("features of the events", features)] if (features := _features(summary)) else []),
        *([("content of the items", content)] if (content := _content(summary)) else []),
        ("events of a user, users", [*lengths, _quantiles(summary.length_quantiles)]),
        ("events of an item, items", [*popularity, _quantiles(summary.popularity_quantiles)]),
        ("share of the events", _rows([(f"top {k} of items", f"{v:.1%}") for k, v in summary.top_shares.items()])),
        ("events over time, from (UTC)", over_time),
        *(
            (
                f"user {_printable(sample.raw_user[:_TITLE_WIDTH])}, {sample.num_events:,} events, the last",
                _events(sample),
            )
            for sample in samples
        ),
    ]
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections) + "\n"


def bars_of(distribution: Distribution, label: Callable[[int, int], str]) -> list[str]:
    """A line a bin: its label, its count, and a bar that is longest for the largest count."""
    largest = max(1, *distribution.counts)
    bins = zip(pairwise(distribution.edges), distribution.counts, strict=True)
    return [
        f"{label(low, high):<20}{count:>14,}  {'#' * round(_BAR_WIDTH * count / largest)}".rstrip()
        for (low, high), count in bins
    ]


def _contents(summary: StoreSummary) -> list[tuple[str, str]]:
    manifest = summary.manifest
    density = manifest.num_events / max(1, manifest.num_users * manifest.num_items)
    return [
        ("users", f"{manifest.num_users:,}"),
        ("items", f"{manifest.num_items:,}"),
        ("events", f"{manifest.num_events:,}"),
        ("events per user x item", f"{density:.4%}"),
        ("first event", moment_of(manifest.first_time_ms)),
        ("last event", moment_of(manifest.last_time_ms)),
        ("longest history", f"{manifest.longest_history:,}"),
        ("time ties", f"{manifest.num_time_ties:,}"),
        ("columns", ", ".join(manifest.columns)),
        ("engine", manifest.engine),
        ("format", str(manifest.format_version)),
        ("version", str(manifest.version)),
        ("fingerprint", manifest.fingerprint),
        *([("dense ids of items", manifest.item_ids)] if manifest.item_ids else []),
    ]


def _accounts(summary: StoreSummary) -> list[tuple[str, str]]:
    manifest = summary.manifest
    counts = {
        "read": manifest.rows_read,
        "used": manifest.rows_used,
        **{f"filtered {rule}": count for rule, count in manifest.rows_filtered.items()},
        **{f"quarantined {reason}": count for reason, count in manifest.rows_quarantined.items()},
    }
    return [(name, f"{count:>14,}  {count / max(1, manifest.rows_read):8.3%}") for name, count in counts.items()]


def _features(summary: StoreSummary) -> list[str]:
    return _rows([(name, _feature(feature)) for name, feature in summary.manifest.features.items()])


def _content(summary: StoreSummary) -> list[str]:
    content = summary.manifest.item_content
    if content is None:
        return []
    num_items = max(1, summary.manifest.num_items)
    shown = [
        (name, f"{each.type.value}, {each.num_missing / num_items:.1%} missing{_size(each)}")
        for name, each in content.features.items()
    ]
    rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in content.rows.items())
    return _rows([*shown, ("rows of the file", rows), ("items without a row", f"{content.num_items_without:,}")])


def _size(feature: StoredItemFeature) -> str:
    size = f", {feature.num_codes} codes" if feature.num_codes else ""
    return f"{size}, {feature.width} numbers" if feature.width else size


def _feature(feature: StoredFeature) -> str:
    missing = f"{feature.num_missing / max(1, feature.num_values):.1%} missing"
    if feature.type is FeatureType.NUMBER:
        return (
            f"number, {missing}, mean {feature.mean:.4g}, deviation {feature.std:.4g}, "
            f"{feature.min:.4g} to {feature.max:.4g}"
        )
    values = ", ".join(map(_printable, feature.vocabulary))
    values = values if len(values) <= _TITLE_WIDTH else f"{values[:_TITLE_WIDTH]}..."
    return f"category, {missing}, {feature.num_codes} codes{': ' if values else ''}{values}"


def _events(sample: SampleHistory) -> list[str]:
    return [
        f"{moment_of(time)}  {_printable(item[:_TITLE_WIDTH])}{_features_at(sample, index)}"
        for index, (time, item) in enumerate(zip(sample.times_ms, sample.items, strict=True))
    ]


def _features_at(sample: SampleHistory, index: int) -> str:
    """The features of an event, after its item; what is missing is left out."""
    found = [(name, values[index]) for name, values in sample.features.items() if values[index]]
    return "".join(f"  {name}={_printable(value[:_TITLE_WIDTH])}" for name, value in found)


def _quantiles(quantiles: dict[str, int]) -> str:
    return "quantiles: " + "  ".join(f"{name} {value:,}" for name, value in quantiles.items())


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    return [f"{name:<{_LABEL_WIDTH}}{value}" for name, value in rows]


def _whole_range(low: int, high: int) -> str:
    return f"{low:,}" if high == low + 1 else f"{low:,}-{high - 1:,}"


def _printable(text: str) -> str:
    """``text`` without what would steer the terminal: ids and titles are anybody's."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
