"""Texts as hashed n-grams: the same buckets on every machine, whatever other texts there are."""

import re
import unicodedata
from functools import lru_cache

from configs.schema.item_features import Ngrams
from data_pipeline.store.feature_encoding import bucket_of

MAX_NGRAMS = 256
"""Of a text, from its beginning; a longer one is a description whose end tells little."""
_WORD = re.compile(r"\w+")


def ngram_buckets(text: str, ngrams: Ngrams, max_ngram: int, num_buckets: int) -> list[int]:
    """The buckets of the n-grams of ``text``, each once, ascending; none of a text without letters and digits.

    Case, accents' spelling and punctuation do not count.
    """
    parts: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    between = " "
    if ngrams is Ngrams.CHARACTERS:
        parts, between = list(" ".join(parts)), ""
    found = set[int]()
    for first in range(min(len(parts), MAX_NGRAMS)):
        for size in range(1, min(max_ngram, len(parts) - first) + 1):
            if len(found) < MAX_NGRAMS:
                found.add(_bucket(between.join(parts[first : first + size]), num_buckets))
    return sorted(found)


@lru_cache(maxsize=2**18)
def _bucket(ngram: str, num_buckets: int) -> int:
    return bucket_of(ngram, num_buckets)
