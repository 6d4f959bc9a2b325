"""Every key with the sentence that stands under it in ``configs/schema``: needs neither Hydra nor torch.

``shardrec VERB --help``, shell completion and docs/configuration.md are made of it, so that a key is described in one
place alone.
"""

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from configs.choices import CHOICES, PRESETS, names_of
from configs.schema import RunConfig
from configs.schema.cluster import ClusterConfig
from configs.schema.serve import ServerConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key; ``default`` as a user types it, empty for none; ``needs`` is the choice that has it: ``loss=gbce``."""

    name: str
    doc: str
    default: str = ""
    takes: tuple[str, ...] = ()
    """The names that may be typed, where there is a list of them."""
    needs: str = ""
    is_group: bool = False


def run_keys() -> list[Key]:
    """Every key of a run in the schema's order, ``experiment`` and the other groups included."""
    preset = Key(name=PRESETS, doc="A named set of keys, which later keys overrule.", takes=tuple(names_of(PRESETS)))
    return [preset, *_keys_of(RunConfig, "")]


def cluster_keys() -> list[Key]:
    """Every key of ``cluster``, those of each kind of cluster included."""
    return [_group("cluster", "The machines: where the job is started."), *_keys_of_group("cluster", ClusterConfig)]


def server_keys() -> list[Key]:
    """Every key of ``shardrec serve``."""
    return list(_keys_of(ServerConfig, ""))


def undocumented(schema: type[Any]) -> list[str]:
    """The fields of ``schema`` that have no sentence under them, neither there nor in a base class."""
    return [field.name for field in dataclasses.fields(schema) if not _docs_of(schema).get(field.name)]


def _keys_of(schema: type[Any], prefix: str) -> Iterator[Key]:
    hints, docs = get_type_hints(schema), _docs_of(schema)
    for field in dataclasses.fields(schema):
        name, hint, doc = prefix + field.name, hints[field.name], docs.get(field.name, "")
        if get_origin(hint) is dict:
            yield Key(name=name, doc=doc, is_group=True)
            yield from _keys_of(get_args(hint)[1], f"{name}.NAME.")
        elif dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield _group(name, doc)
            yield from _keys_of_group(name, hint)
        else:
            yield Key(name=name, doc=doc, default=_typed(_default(field)), takes=_members(hint))


def _group(name: str, doc: str) -> Key:
    names = tuple(names_of(name)) if name in CHOICES else ()
    return Key(name=name, doc=doc, default=names[0] if names else "", takes=names, is_group=True)


def _keys_of_group(group: str, schema: type[Any]) -> Iterator[Key]:
    """What all choices share comes first; what some have says which."""
    choices = {name: _class(choice) for name, choice in CHOICES.get(group, {"": schema}).items()}
    owners: dict[Key, list[str]] = {}
    for name, variant in choices.items():
        for key in _keys_of(variant, f"{group}."):
            if key.name != "cluster.name":  # set by the choice itself
                owners.setdefault(key, []).append(name)
    shared = [key for key, names in owners.items() if len(names) == len(choices)]
    yield from shared
    for key, names in owners.items():
        if key not in shared:
            yield dataclasses.replace(key, needs=f"{group}={'|'.join(names)}")


def _class(choice: Any) -> type[Any]:
    return choice if isinstance(choice, type) else type(choice)


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _typed(value: Any) -> str:
    """``value`` as a user types it: ``Precision.FP32`` is ``fp32``, an empty list or text is nothing."""
    match value:
        case bool():
            return str(value).lower()
        case Enum():
            return str(value.value)
        case list():
            return f"[{','.join(map(str, value))}]" if value else ""
    return str(value)


def _members(hint: Any) -> tuple[str, ...]:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return tuple(str(each.value) for each in hint)
    return ("true", "false") if hint is bool else ()


def _docs_of(schema: type[Any]) -> dict[str, str]:
    """The sentence under each field, by its name; those of the base classes where a field has none of its own."""
    docs: dict[str, str] = {}
    for each in reversed(schema.__mro__[:-1]):
        docs |= _sentences(each.__module__).get(each.__name__, {})
    return docs


@cache
def _sentences(module: str) -> dict[str, dict[str, str]]:
    """By class and field, the texts that stand under fields in the source of ``module``."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_documented(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _documented(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as doc)):
                yield name, " ".join(doc.split())
