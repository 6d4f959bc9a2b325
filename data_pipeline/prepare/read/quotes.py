"""Where the rows of delimited text begin and end, by its quotes alone: a second opinion beside the reader's.

RFC 4180 lets a quote stand at the start of a field, at its end, and doubled within. A reader that meets another one
takes the text up to the next quote for one field, line ends and all, and rows vanish. So every quote is looked at.
"""

from dataclasses import dataclass

import numpy as np

_LINE_FEED, _RETURN, _BLANKS = 10, 13, (32, 9)


@dataclass(kw_only=True, slots=True)
class Fault:
    """A quote that stands where none may stand, or rows that one field has swallowed: the line and what is wrong."""

    line: int
    reason: str


class QuoteScanner:
    """Goes over blocks of whole lines; ``num_records`` counts lines that are not blank and end outside of quotes."""

    def __init__(self, separator: bytes, quote: bytes, escape: bytes, num_columns: int, time_column: int | None):
        self._separator, self._quote, self._escape = separator[0], quote, escape
        self._num_columns, self._time_column = num_columns, time_column
        self.num_records, self.is_open, self.fault = 0, False, Fault(line=0, reason="")
        self._num_lines, self._opened = 0, 0
        self._open_is_full = True

    def add(self, block: bytes) -> None:
        """Take the next ``block``; what is after the first fault is of no interest."""
        if self.fault.line:
            return
        if not self.is_open and (not self._quote or self._quote not in block):
            self._add_without_quotes(block)
            return
        data = np.frombuffer(block, dtype=np.uint8)
        newlines = np.flatnonzero(data == _LINE_FEED)
        quotes = np.flatnonzero(data == self._quote[0])
        if self._escape and len(quotes):
            is_escaped = _is_escaped(data, quotes, self._escape[0])
            quotes, escaped = quotes[~is_escaped], quotes[is_escaped]
            self._check_escaped(newlines, quotes, escaped)
        self._check_places(data, newlines, quotes)
        if not self.fault.line:
            self._count(block, data, newlines, quotes)

    def close(self) -> None:
        """The text has ended."""
        if self.is_open and not self.fault.line:
            self.fault = Fault(line=self._opened, reason="is opened and never closed")

    def _add_without_quotes(self, block: bytes) -> None:
        num_lines = block.count(b"\n")
        self._num_lines += num_lines
        num_blank = 0
        if block[:1] in (b"\n", b"\r") or b"\n\n" in block or (b"\r" in block and b"\n\r\n" in block):
            data = np.frombuffer(block, dtype=np.uint8)
            num_blank = int(_is_blank(data, np.flatnonzero(data == _LINE_FEED)).sum())
        self.num_records += num_lines - num_blank + (not block.endswith(b"\n"))

    def _check_escaped(self, newlines: np.ndarray, quotes: np.ndarray, escaped: np.ndarray) -> None:
        """A quote has no need of an escape outside of a quoted field, and who reads one there would not know it."""
        outside = escaped[(np.searchsorted(quotes, escaped) + self.is_open) % 2 == 0]
        if len(outside):
            line = self._num_lines + int(np.searchsorted(newlines, outside[0])) + 1
            self.fault = Fault(line=line, reason="stands alone")

    def _check_places(self, data: np.ndarray, newlines: np.ndarray, quotes: np.ndarray) -> None:
        """A quote that opens follows a separator, a line end or the quote that it doubles; one that closes goes
        before them."""
        closes = (np.arange(len(quotes)) + self.is_open) % 2 == 1
        before = np.where(quotes > 0, data[quotes - 1], _LINE_FEED)
        after = np.where(quotes + 1 < len(data), data[np.minimum(quotes + 1, len(data) - 1)], _LINE_FEED)
        quote = self._quote[0]
        is_right = np.where(
            closes,
            np.isin(after, (self._separator, _LINE_FEED, _RETURN, quote)),
            np.isin(before, (self._separator, _LINE_FEED, quote)),
        )
        for k in np.flatnonzero(~is_right) if not self.fault.line else ():
            step = 1 if closes[k] else -1
            if not self._is_after_blanks(data, int(quotes[k]), step):
                line = self._num_lines + int(np.searchsorted(newlines, quotes[k])) + 1
                self.fault = Fault(line=line, reason="stands alone")
                return

    def _is_after_blanks(self, data: np.ndarray, place: int, step: int) -> bool:
        """Whether nothing but blanks stands between the quote at ``place`` and the end of its field."""
        place += step
        while 0 <= place < len(data) and data[place] in _BLANKS and data[place] != self._separator:
            place += step
        return not 0 <= place < len(data) or data[place] in (self._separator, _LINE_FEED, _RETURN)

    def _count(self, block: bytes, data: np.ndarray, newlines: np.ndarray, quotes: np.ndarray) -> None:
        ends = newlines if block.endswith(b"\n") else np.append(newlines, len(data))
        num_before = np.searchsorted(quotes, ends)
        is_inside = (num_before + self.is_open) % 2 == 1
        separators = np.flatnonzero(data == self._separator)
        counts = np.diff(np.searchsorted(separators, ends), prepend=0)
        self._check_swallowed(block, ends, is_inside, counts == self._num_columns - 1)
        self.num_records += int((~is_inside & ~_is_blank(data, ends)).sum())
        if len(quotes):
            opening = quotes[-1] if (len(quotes) + self.is_open) % 2 else None
            if opening is not None:
                self._opened = self._num_lines + int(np.searchsorted(newlines, opening)) + 1
            self.is_open = opening is not None
        self._num_lines += len(newlines)

    def _check_swallowed(self, block: bytes, ends: np.ndarray, is_inside: np.ndarray, is_full: np.ndarray) -> None:
        """A quote that stands alone at the start of a field, and another at the end of one, pair up: each line of
        such a record has as many separators as a row, which lines of a text with line ends have not."""
        if not is_inside.any() and not self.is_open:
            return
        starts = np.flatnonzero(np.concatenate([[True], ~is_inside[:-1]]))
        all_full = np.logical_and.reduceat(is_full, starts)
        lengths = np.diff(np.append(starts, len(ends)))
        if self.is_open:
            all_full[0] &= self._open_is_full
            lengths[0] += 1
        self._open_is_full = bool(all_full[-1]) if is_inside[-1] else True
        last_of = np.append(starts[1:], len(ends)) - 1
        for k in np.flatnonzero(all_full & (lengths > 1) & ~is_inside[last_of]):
            last = int(last_of[k])
            outer = {last} if k == 0 and self.is_open else {int(starts[k]), last}
            lines = [block[int(ends[n - 1]) + 1 if n else 0 : int(ends[n])] for n in outer]
            if all(map(self._looks_like_a_row, lines)):
                line = self._num_lines + last + 1
                self.fault = Fault(line=line, reason="closes a field that would swallow whole rows")
                return

    def _looks_like_a_row(self, line: bytes) -> bool:
        if self._num_columns < 2:
            return False
        if self._time_column is None:
            return True
        time = line.split(bytes([self._separator]))[self._time_column].strip(b'" \r')
        return time[:1].isdigit() and not time.translate(None, b"0123456789-+:/.,TZ ")


def _is_blank(data: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of the lines that end at ``ends`` hold nothing, or a carriage return alone."""
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts
    is_return = (lengths == 1) & (data[np.minimum(starts, len(data) - 1)] == _RETURN)
    return (lengths == 0) | is_return


def _is_escaped(data: np.ndarray, quotes: np.ndarray, escape: int) -> np.ndarray:
    """Whether an odd number of escape characters stands before each of ``quotes``."""
    run_ends = np.where(data != escape, np.arange(len(data)), -1)
    last_other = np.maximum.accumulate(run_ends)
    before = np.where(quotes > 0, last_other[np.maximum(quotes - 1, 0)], -1)
    return (quotes - 1 - before) % 2 == 1
