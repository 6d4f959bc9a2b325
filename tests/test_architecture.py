"""The shape of the code: budgets, documented names, and packages that are ours."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["configs", "data_pipeline", "models", "train", "launch", "benchmarks"]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_LOOP_LINES = 120

SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
HOME_MADE = (
    "lanes?",
    "num_lanes",
    "LaneCursor",
    "window_row_groups",
    "floors?(?!\\()",
    "whereabouts",
    "[Vv]erdict\\.py",
    "Judge",
    "Peers",
    "DistributedPeers",
    "mirror(?:ed|s)?",
    "RunMirror",
    "RunPlace",
    "folder_of",
    "key_of_disk",
    "tried\\(",
    "_told",
    "Ragged",
    "ragged_attention",
    "class Predictions",
    "GuardConfig",
    "BAD_STRETCH",
    "passed_over",
    "num_worse",
    "num_token_places",
    "end_with",
    "made_there",
    "made_the_same",
    "told_apart",
    "wanted_of",
    "Weigh",
    "_settled",
    "_spilled",
    "StoreError",
    "mend_\\w+",
    "LEAST_USED",
    "LINE",
    "EXTRA",
    "PLACE(?!/)",
)
"""Patterns of names that the field has other words for."""
FOREIGN = r"\b(told|lies|anew|so many|hangs? on|of its own|goes on|mend(?:s|ed)?|as suits)\b"
"""Words that no native engineer would use where we used them, in what a user reads."""
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


def test_a_file_fits_one_sitting() -> None:
    lines = {name_of(file): len(file.read_text().splitlines()) for file in SOURCES + TESTS}
    assert not {name: num for name, num in lines.items() if num > MAX_FILE_LINES}


def test_a_function_is_short() -> None:
    lines = {
        f"{name_of(file)}:{node.name}": node.end_lineno - node.lineno + 1
        for file in SOURCES + TESTS
        for node in functions(ast.parse(file.read_text()))
        if node.end_lineno is not None
    }
    assert not {name: num for name, num in lines.items() if num > MAX_FUNCTION_LINES}


def test_every_module_and_public_name_is_documented() -> None:
    trees = {name_of(file): ast.parse(file.read_text()) for file in SOURCES}
    assert not [name for name, tree in trees.items() if not ast.get_docstring(tree)]
    assert not [
        f"{file}:{name}"
        for file, tree in trees.items()
        for name, node in public_definitions(tree.body)
        if not ast.get_docstring(node)
    ]


def test_the_paths_that_architecture_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`([a-z_]+/[a-z_/]+(?:\.[a-z]+)?)`", text)
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).exists()]


def test_names_are_the_fields_own() -> None:
    """Words of our own that were replaced by the field's; old keys stand where they are refused with the new name."""
    own = re.compile(rf"\b({'|'.join(HOME_MADE)})\b")
    found = {
        f"{name_of(file)}: {match[0]}"
        for file in [*SOURCES, *DOCUMENTS]
        for match in own.finditer(file.read_text())
        if file.name not in ("renamed_keys.py", "CHANGELOG.md")
    }
    assert found == {"data_pipeline/stream/order.py: num_lanes", "data_pipeline/stream/order.py: window_row_groups"}


def test_messages_and_pages_are_plain_english() -> None:
    found = {f"{name_of(file)}: {text}" for file in SOURCES for text in messages_of(file) if re.search(FOREIGN, text)}
    allowed = {text for text in found if re.search(r"cannot be told( from|:)", text)}
    pages = {
        f"{name_of(file)}: {match[0]}"
        for file in DOCUMENTS
        if file.parent.name == "docs" and file.name != "dirty_data.md"
        for match in re.finditer(FOREIGN, file.read_text())
    }
    assert found - allowed == set()
    assert pages == set()


def messages_of(file: Path) -> Iterator[str]:
    """The texts of a module that are no docstrings; of one with values in it, the parts between them."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


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


def test_a_process_that_loads_torch_leaves_nothing_to_the_shutdown_of_the_interpreter() -> None:
    """Which native threads of torch abort now and then, and a command that has succeeded with them."""
    torch_packages = [ROOT / "train", ROOT / "benchmarks", ROOT / "launch" / "serve"]
    files = [file for folder in torch_packages for file in folder.rglob("*.py")]
    programs = [file.read_text().partition('if __name__ == "__main__":')[2] for file in files]
    assert sum("exit_at_once(" in each or "run_and_exit(" in each or "start()" in each for each in programs) > 10
    assert not [file for file, each in zip(files, programs, strict=True) if "sys.exit(" in each]
