"""The shape of the code: budgets, documented names, and packages that are ours."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["configs", "data_pipeline", "models", "train", "launch", "benchmarks"]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_LOOP_LINES = 120

SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def public_definitions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield owner + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{owner}{node.name}.")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("file", SOURCES + TESTS, ids=name_of)
def test_a_file_fits_one_sitting(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("file", SOURCES + TESTS, ids=name_of)
def test_a_function_is_short(file: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(ast.parse(file.read_text()))
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_every_module_and_public_name_is_documented(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), f"{name_of(file)} has no docstring"
    undocumented = [name for name, node in public_definitions(tree.body) if not ast.get_docstring(node)]
    assert not undocumented


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_every_public_function_is_typed(file: Path) -> None:
    untyped = [
        name
        for name, node in public_definitions(ast.parse(file.read_text()).body)
        if isinstance(node, ast.FunctionDef)
        and (
            node.returns is None
            or any(
                argument.annotation is None
                for argument in node.args.args + node.args.kwonlyargs
                if argument.arg not in ("self", "cls")
            )
        )
    ]
    assert not untyped


def test_the_loop_is_what_a_newcomer_reads_first() -> None:
    assert len((ROOT / "train" / "loop.py").read_text().splitlines()) <= MAX_LOOP_LINES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_the_one_of_this_repository(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve().parent == ROOT / package


def test_no_test_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
