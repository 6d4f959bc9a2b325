"""Every relative link and anchor of README and the documents resolves, and CONTRIBUTING names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", flags=re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page; the n-th repetition of a title ends in ``-n``."""
    anchors: set[str] = set()
    times: dict[str, int] = {}
    for title in HEADING.findall(FENCE.sub("", page.read_text())):
        # The text of a link in a heading counts, its target does not.
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        seen = times.get(anchor, 0)
        times[anchor] = seen + 1
        anchors.add(f"{anchor}-{seen}" if seen else anchor)
    return anchors


def is_broken(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return True
    return bool(anchor) and anchor not in anchors_of(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_and_anchor_resolves(page: Path) -> None:
    links = [link for link in LINK.findall(FENCE.sub("", page.read_text())) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if is_broken(page, link)] == []


def test_a_missing_file_and_a_missing_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One, two: `three`\n\n```sh\n# not a heading\n```\n\n# Again\n\n# Again\n")
    assert not any(is_broken(page, link) for link in ("#one-two-three", "page.md#again", "#again-1", "page.md"))
    assert all(is_broken(page, link) for link in ("#not-a-heading", "#again-2", "other.md", "other.md#again"))


def test_the_suites_that_contributing_names_exist_and_hold_every_law() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 14))
    for number, suites in rows:
        files = re.findall(r"`([^`]+)`", suites)
        assert files, f"law {number} names no suite"
        assert [file for file in files if not (ROOT / "tests" / file).is_file()] == []
