"""``python -m benchmarks.report RUN ...|SWEEP [key=value ...]``: one page, one picture, one JSON file over runs."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.content import MADE_BY, content_of
from benchmarks.report.gather import gather
from benchmarks.report.options import ReportOptions, options_of
from benchmarks.report.page import page_of
from benchmarks.report.picture import HOW_TO_INSTALL, picture_of
from configs.atomic_files import write_atomically
from configs.errors import ConfigError, exit_code_of
from configs.process_exit import exit_at_once


def main(words: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: report(options_of(words)))


def report(options: ReportOptions) -> None:
    """Write the page, and beside it a picture and all numbers.

    Raises :class:`ConfigError` where there is nothing to report on and for a file of somebody else in the way, and
    :class:`DataError` for a run that cannot be read.
    """
    page = Path(options.output)
    data, image = page.with_suffix(".json"), page.with_suffix(".png")
    for path in (page, data, image):
        _refuse_foreign(path)
    content = content_of(gather(options.places, options.metric), options)
    picture = picture_of(content)
    _write(page, page_of(content).encode("utf-8", "replace"))
    _write(data, (json.dumps(_finite(content), indent=2, allow_nan=False) + "\n").encode("utf-8", "replace"))
    if picture:
        _write(image, picture)
    _say(content, page, image if picture else None, data)


def _say(content: dict[str, Any], page: Path, image: Path | None, data: Path) -> None:
    for sentence in [*content["headline"], *(step["words"] for step in content["steps"])]:
        print(sentence)
    for reason in dict.fromkeys(step["not_paired"] for step in content["steps"] if step["not_paired"]):
        print(f"not compared user by user: {reason}", file=sys.stderr)
    for each in content["left_out"]:
        print(f"not in the pictures: {each['place']}: {each['why']}", file=sys.stderr)
    written = [str(path) for path in (page, image, data) if path is not None]
    print(f"written to {', '.join(written)}")
    if image is None and any(row["cost"] is not None for row in content["configurations"]):
        print(HOW_TO_INSTALL)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ConfigError(f"output={path} cannot be written: {error.strerror}; name another file") from error


def _refuse_foreign(path: Path) -> None:
    """Raise :class:`ConfigError` where ``path`` is there and no report has written it."""
    try:
        is_foreign = path.exists() and (not path.is_file() or MADE_BY.encode() not in path.read_bytes()[:4096])
    except OSError as error:
        raise ConfigError(f"output={path} cannot be read: {error.strerror}; name another file") from error
    if is_foreign:
        raise ConfigError(f"{path} is there, and is no report; name another file by output=FILE.html")


def _finite(value: Any) -> Any:
    """``value`` with None for numbers that JSON does not know."""
    match value:
        case dict():
            return {str(key): _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
