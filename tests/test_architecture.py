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


def test_models_know_the_batch_and_nothing_else_of_the_data_pipeline() -> None:
    found = {name for module, names in imports().items() if module.startswith("models") for name in names}
    assert {name for name in found if name.startswith("data_pipeline")} == {"data_pipeline.batch"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = imports()
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert not left, "each of these imports another of them"


def imports() -> dict[str, set[str]]:
    """Every module of ours, with the modules of ours that it imports when it is loaded."""
    files = {module_of(file): file for file in SOURCES}
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names = set()
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[module] = names & files.keys() - {module}
    return found


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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
