"""The feature of a store that is predicted: a number that every event has."""

from configs.errors import ConfigError
from data_pipeline.store.features import StoredFeature


def refuse_label(store: str, features: dict[str, StoredFeature], label: str, *, is_probability: bool) -> None:
    """Raise :class:`ConfigError` where ``label`` of ``features`` cannot be predicted; ``is_probability``: by a number
    between 0 and 1."""
    key = f"loss.label={label}"
    if not label:
        raise ConfigError(
            "loss=mse needs loss.label=NAME, the feature of the events that is predicted, such as rating; prepare it "
            "with data.features.NAME.type=number"
        )
    if label not in features:
        raise ConfigError(
            f"{key}: data.store={store} has no feature {label!r}, it has {sorted(features) or 'none'}; prepare it "
            f"with data.features.{label}.type=number"
        )
    feature = features[label]
    if feature.num_codes:
        raise ConfigError(
            f"{key}: in data.store={store} it is a category, not a number; prepare it with "
            f"data.features.{label}.type=number"
        )
    if feature.num_missing and not feature.fill:
        raise ConfigError(
            f"{key}: {feature.num_missing:,} of {feature.num_values:,} events of data.store={store} have none, and "
            f"their mean is nobody's rating; leave those events out of the log, or prepare with "
            f"data.features.{label}.fill=NUMBER"
        )
    shift, scale = feature.shift_and_scale
    low, high = (feature.min - shift) / scale, (feature.max - shift) / scale
    if is_probability and (low < 0 or high > 1):
        raise ConfigError(
            f"{key} reaches from {low:g} to {high:g} in data.store={store}, and model=sigmoid_linear predicts "
            f"numbers between 0 and 1; prepare it with data.features.{label}.normalise=min_max, or choose model=dot"
        )
