"""The page docs/dirty_data.md, written from the cases: ``PYTHONPATH=.:tests python -m dirty.page``."""

from pathlib import Path

from dirty.case import Case, Outcome
from dirty.dialects import DIALECTS, WITHOUT_TIMES
from dirty.folders import FOLDERS
from dirty.parquet import COLUMNS, PARQUET
from dirty.text import DELIMITED, JSON_LINES
from dirty.values import IDS, TIMES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dirty_data.md"
SECTIONS: dict[str, list[Case]] = {
    "Ids and rows": IDS,
    "Times": TIMES,
    "Columns and types": COLUMNS,
    "Parquet files": PARQUET,
    "Delimited text": DELIMITED,
    "Text of other programs": DIALECTS,
    "Logs without times": WITHOUT_TIMES,
    "JSON lines": JSON_LINES,
    "Files and folders": FOLDERS,
}
CASES = [case for cases in SECTIONS.values() for case in cases]
_HEAD = """# Dirty data

What `shardrec prepare` does with input that is broken or unusual. Each row is a test (`tests/dirty`), and this page
is written from them: `PYTHONPATH=.:tests python -m dirty.page`.

- **accepted**: read by the rule that is given.
- **quarantined**: the rows go to `STORE/quarantine/`, as they came, with `reason`, `log_file` and `log_row`, and are
  counted by reason in `manifest.json`. More of them than `data.max_bad_fraction` of all rows (0.01) end the work.
- **refused**: one line that names the file, the place in it where it can be known, and what to do; exit code 2; no
  store is left, and an older one stays as it was.

In every case rows read = rows used + rows filtered + rows quarantined, to the unit.

Not found out: damage to a Parquet page that still decodes and has no checksum; times in seconds that are read as
milliseconds (a note says that all are before 1973, and `data.source.earliest_time` rejects them); rows that are wrong
but look right.
"""


def page() -> str:
    """The text of the page."""
    tables = [f"\n## {title}\n\n{_table_of(cases)}" for title, cases in SECTIONS.items()]
    return _HEAD + "".join(tables)


def _table_of(cases: list[Case]) -> str:
    rows = ["| input | with | what becomes of it |", "|---|---|---|"]
    rows += [f"| {case.name} | {_cell(case.settings)} | **{case.outcome.value}**: {_told(case)} |" for case in cases]
    return "\n".join(rows) + "\n"


def _told(case: Case) -> str:
    match case.outcome:
        case Outcome.ACCEPTED:
            return case.rule
        case Outcome.QUARANTINED:
            return ", ".join(f"`{reason}`" for reason in case.reasons)
        case Outcome.REFUSED:
            return _cell(list(case.says))


def _cell(words: list[str]) -> str:
    return " … ".join(f"`{word}`" for word in words).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
