"""What a store remembers of its events' features: how values were cleaned, so that the same is done at inference."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from configs.errors import ConfigError
from configs.schema.features import Encode, FeatureType, Normalise

MISSING, OTHER, FIRST_VALUE = 0, 1, 2
"""Codes of a category: a missing value, one outside the vocabulary, the first of the vocabulary or bucket."""


@dataclass(kw_only=True, slots=True)
class StoredFeature:
    """One feature in ``manifest.json``; the statistics are of the events that were used when the store was made."""

    type: FeatureType
    encode: Encode
    max_values: int
    normalise: Normalise
    fill: str
    """As ``data.features.NAME.fill``."""
    num_values: int = 0
    """Events, those without a value included."""
    num_missing: int = 0
    vocabulary: list[str] = field(default_factory=list)
    """The frequent values of a category, by descending count, ties in order of their bytes; none with ``hash``."""
    filled_by: float = 0.0
    """What a missing number became; the four that follow are of the numbers after that."""
    mean: float = 0.0
    std: float = 0.0
    min: float = 0.0
    max: float = 0.0

    def __post_init__(self) -> None:
        """Choices as they are read from JSON become enums."""
        self.type, self.encode = FeatureType(self.type), Encode(self.encode)
        self.normalise = Normalise(self.normalise)

    @property
    def num_codes(self) -> int:
        """Codes of a category lie below it; 0 for a number."""
        if self.type is FeatureType.NUMBER:
            return 0
        return FIRST_VALUE + (self.max_values if self.encode is Encode.HASH else len(self.vocabulary))

    @property
    def shift_and_scale(self) -> tuple[float, float]:
        """A number x is normalised to ``(x - shift) / scale``; one that is always the same becomes 0."""
        match self.normalise:
            case Normalise.STANDARD:
                return self.mean, self.std or 1.0
            case Normalise.MIN_MAX:
                return self.min, (self.max - self.min) or 1.0
            case Normalise.NONE:
                return 0.0, 1.0


def raw_column(name: str) -> str:
    """The column of a store's histories with the values of feature ``name`` as the log has them."""
    return f"raw_{name}"


def chosen_features(
    store: str, features: dict[str, StoredFeature], names: Sequence[str] | None
) -> dict[str, StoredFeature]:
    """The ``names`` of ``features``, or all of them for None; :class:`ConfigError` for one that is not there."""
    for name in names or ():
        if name not in features:
            raise ConfigError(
                f"model.event_features={list(names or ())}: data.store={store} has no feature {name!r}, it has "
                f"{sorted(features) or 'none'}; prepare it with data.features.{name}.type=..., or leave the name out"
            )
    return {name: features[name] for name in (features if names is None else names)}
