"""The page is one file that asks for nothing, runs nothing, and shows whatever a run is called as text."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.report.__main__ import main
from chromium import browser, needs_chromium
from recorded import write_run

ALONE = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = "<script>alert(1)<img src=x onerror=alert(2)> &amp; \"'{{ 7*7 }}"
PHASES = {"start": 2.0, "encoder": 8.0, **{f"phase {number}": 1.0 for number in range(9)}}


class Outline(HTMLParser):
    """The tags of a page, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline_of(page: Path) -> Outline:
    outline = Outline()
    outline.feed(page.read_text())
    assert not outline.open
    return outline


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of several runs, one of which is called as an attacker would, with phases and without."""
    folder = tmp_path_factory.mktemp("reports")
    places = [write_run(folder / HOSTILE.replace("/", ""), ["loss=bce", "seed=5"], ndcg=0.1, usd=0.01)]
    for number in range(10):
        words, cost = ["loss=gbce", f"model.dropout=0.{number}"], {"phases_s": PHASES}
        target = {"metric": "ndcg@10", "target": 0.1, "is_reached": True, "usd": 0.1, "wall_s": 3.0}
        places.append(
            write_run(
                folder / f"r{number}",
                words,
                ndcg=0.1 + number / 99,
                usd=0.02 * 2**number,
                summary={"cost": cost, "target": target},
            )
        )
    assert main([*places, f"output={folder}/page.html", f"title={HOSTILE}"]) == 0
    return folder / "page.html"


def test_nothing_is_run_and_nothing_is_asked_for(page: Path) -> None:
    seen = outline_of(page).seen
    assert not {tag for tag, _ in seen} & {"script", "img", "iframe", "object", "embed", "form"}
    assert not [name for _, attributes in seen for name in attributes if name.startswith("on")]
    links = [
        value for _, attributes in seen for name, value in attributes.items() if name in ("src", "href", "action")
    ]
    assert links == ["data:,"]
    assert "url(" not in page.read_text()
    assert "@import" not in page.read_text()


def test_names_are_text(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7*7 }}" in text, "it is no template either"


def test_behind_every_picture_is_a_table(page: Path) -> None:
    tags = [tag for tag, _ in outline_of(page).seen if tag in ("svg", "table")]
    assert tags.count("svg") == 3
    for place, tag in enumerate(tags):
        assert tag != "svg" or "table" in tags[place + 1 : place + 2]


def test_a_picture_and_all_numbers_are_written_beside_it(page: Path) -> None:
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert '"cost_of_a_point"' in page.with_suffix(".json").read_text()


def test_a_run_alone_has_a_page_in_its_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "alone")
    assert main([run]) == 0
    assert main([run]) == 0, "a report may be written over a report"
    outline_of(Path(run) / "report.html")


def test_files_of_somebody_else_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "alone")
    for name in ("mine.html", "mine.png", "mine.json"):
        (tmp_path / name).write_text("mine")
        assert main([run, f"output={tmp_path}/mine.html"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    assert not list(tmp_path.glob("mine*"))


@needs_chromium
@pytest.mark.slow
def test_a_browser_shows_it_light_and_dark_and_on_a_phone(page: Path) -> None:
    with browser() as chromium:
        for width in (360, 1000):
            views = [chromium.view(page, width, scheme) for scheme in ("light", "dark")]
            for view in views:
                assert view.complaints == []
                assert view.requests == [page.resolve().as_uri()]
                assert view.width == width, "nothing is wider than the screen"
                assert HOSTILE in view.text
            assert [view.background for view in views] == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]
