"""Writes docs/configuration.md: every key there is, from the schema.

``shardrec config --reference > docs/configuration.md`` makes it anew.
"""

from collections.abc import Iterable, Iterator

from configs.reference import Key, cluster_keys, run_keys, server_keys

INTRODUCTION = """# Every key

Made by `shardrec config --reference`: change the sentence under the key in `configs/schema/`, not this page.

Type a key as `key=value` behind a verb: `shardrec train experiment=smoke model.num_blocks=3`. `shardrec config ...`
prints what a run gets. An empty default means none. A list is typed in brackets, `data.event_types=[buy,view]`.
"""

RUN = """## A run

Keys of `config`, `prepare`, `train`, `evaluate`, `recommend`, `follow`, `export`, `launch`, `bench` and `doctor`.
"""

CLUSTER = """## The cluster

Keys of `shardrec launch`; they are never part of a run.
"""


SERVER = """## The server

Keys of `shardrec serve`; they are never part of a run.
"""


def reference_page() -> str:
    """The page as Markdown, one table for each group of keys."""
    parts = [INTRODUCTION, RUN, *_tables(run_keys()), CLUSTER, *_tables(cluster_keys())]
    return "\n".join([*parts, SERVER, *_tables(server_keys())]).rstrip() + "\n"


def _tables(keys: Iterable[Key]) -> Iterator[str]:
    rows: dict[str, list[str]] = {"": []}
    heads: dict[str, str] = {"": ""}
    for key in keys:
        if key.is_group:
            heads[key.name], rows[key.name] = f"### {key.name}\n\n{key.doc}{_choice(key)}\n", []
        else:
            group = key.name.rpartition(".")[0].removesuffix(".NAME")
            rows[group].append(f"| `{key.name}` | {_code(key.default)} | {_words(key)} |")
    for group, lines in rows.items():
        if heads[group]:
            yield heads[group]
        if lines:
            yield "\n".join(["| key | default | |", "|---|---|---|", *lines, ""])


def _choice(key: Key) -> str:
    if not key.takes:
        return ""
    return f" Choose with `{key.name}=NAME`: {', '.join(f'`{name}`' for name in key.takes)}."


def _words(key: Key) -> str:
    needs = f"With `{key.needs}`: " if key.needs else ""
    takes = f" One of {', '.join(f'`{name}`' for name in key.takes)}." if _is_listed(key) else ""
    return (needs + key.doc.replace("``", "`") + takes).replace("|", "\\|")


def _is_listed(key: Key) -> bool:
    return bool(key.takes) and key.takes != ("true", "false")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
