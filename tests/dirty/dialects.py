"""Text as programs other than ours write it: encodings, line ends, quotes, escapes, and logs without times."""

from dirty.case import CLEAN, NAMES, Case, content, csv_text, files, frame

CSV = csv_text()
HALF = csv_text(CLEAN[:10])
CRLF = csv_text(CLEAN[15:], header=False).replace("\n", "\r\n")
NUMBERED = [(u, i, n) for n, (u, i, _) in enumerate(CLEAN)]


def titled(title: str, *rows: int, mark: str = '"') -> str:
    """CSV with a fourth column that holds ``title`` in ``rows`` and ``plain`` in the others, between ``mark``."""
    lines = csv_text().splitlines()
    titles = [f"{mark}{title if k in rows else 'plain'}{mark}" for k in range(len(CLEAN))]
    return (
        "\n".join([f"{lines[0]},title", *(f"{line},{each}" for line, each in zip(lines[1:], titles, strict=True))])
        + "\n"
    )


DIALECTS = [
    Case(
        name="UTF-16 with a byte order mark, as spreadsheets write",
        make=content(CSV.encode("utf-16"), "log.csv"),
        rule="read as what the mark says",
    ),
    Case(
        name="UTF-16 without one",
        make=content(CSV.encode("utf-16-le"), "log.csv"),
        says=("log.csv looks like UTF-16", "data.source.encoding=utf-16-le"),
    ),
    Case(
        name="UTF-16 without one, told",
        make=content(CSV.encode("utf-16-le"), "log.csv"),
        source={"encoding": "utf-16-le"},
        rule="`data.source.encoding`",
    ),
    Case(
        name="Latin-1 ids, not told",
        make=content(csv_text([(f"é{u}", i, t) for u, i, t in CLEAN]).encode("latin-1"), "log.csv"),
        options={"max_bad_fraction": 0.1},
        says=("user_not_utf8 20", "data.source.encoding"),
    ),
    Case(
        name="Latin-1 ids, told",
        make=content(csv_text([(f"é{u}", i, t) for u, i, t in CLEAN]).encode("latin-1"), "log.csv"),
        source={"encoding": "latin-1"},
        events=[(f"é{u}", i, t) for u, i, t in CLEAN],
        rule="`data.source.encoding`",
    ),
    Case(
        name="line ends of carriage returns alone",
        make=content(CSV.replace("\n", "\r"), "log.csv"),
        rule="they end rows",
    ),
    Case(
        name="line ends of all three kinds",
        make=content(HALF + csv_text(CLEAN[10:15], header=False).replace("\n", "\r") + CRLF, "log.csv"),
        rule="each ends a row",
    ),
    Case(
        name="a carriage return in a field that is not read",
        make=content("note," + CSV.replace("\n", "\na\rb,", 20).removesuffix("a\rb,"), "log.csv"),
        rule="it ends no row where its pieces are none",
    ),
    Case(
        name="a backslash before a quote, as Spark, MySQL and Snowflake write it",
        make=content(titled('30 \\" pipe, 4 \\" wide', 7, 11), "log.csv"),
        rule="found by looking, since RFC 4180 has no way to read it: `data.source.escape`",
    ),
    Case(
        name="a backslash before the last quote",
        make=content(titled('30 \\"', 3, 4, 9), "log.csv"),
        rule="as above",
    ),
    Case(
        name="a backslash at the end of a quoted field, as Windows' paths have it",
        make=content(titled("C:\\a\\", 3, 4, 9), "log.csv"),
        rule="RFC 4180, since a backslash that escapes leaves a quote open",
    ),
    Case(
        name="another escape, told",
        make=content(titled('30 ^" pipe', 3, 4), "log.csv"),
        source={"escape": "^"},
        rule="`data.source.escape`",
    ),
    Case(
        name="quotes that stand alone at both ends of rows, which would be one field",
        make=content(
            titled("plain", mark="").replace(",plain\n1,", ',plain\n"1,', 1).replace(",plain\n2,", ',plain"\n2,', 2),
            "log.csv",
        ),
        says=("log.csv cannot be read", "a quote", "data.source.quote"),
    ),
    Case(
        name="a quote that stands alone in tab-separated text",
        make=content(titled("plain", mark="").replace(",", "\t").replace("plain", '"plain', 3), "log.tsv"),
        says=("log.tsv cannot be read", "a quote", 'data.source.quote=""'),
    ),
    Case(
        name="such text, read without quoting",
        make=content(titled("plain", mark="").replace(",", "\t").replace("plain", '"plain', 3), "log.tsv"),
        source={"quote": ""},
        rule="`data.source.quote=`",
    ),
    Case(
        name="line ends in quoted fields",
        make=content(titled("two\nlines, and\r\n\n more", 3, 4, 9), "log.csv"),
        rule="RFC 4180",
    ),
    Case(
        name="NUL bytes at the end of a file, as a machine that lost power leaves them",
        make=content(CSV + "\0" * 600, "log.csv"),
        reasons={"null_user": 1},
    ),
    Case(
        name="a first line `sep=;`, as spreadsheets write",
        make=content("sep=;\r\n" + csv_text(separator=";").replace("\n", "\r\n"), "log.csv"),
        rule="it names the separator",
    ),
    Case(
        name="blanks around the names of a header",
        make=content(CSV.replace(",", ", ", 2), "log.csv"),
        rule="no part of a name",
    ),
    Case(
        name="times with separators of thousands",
        make=content(csv_text([(u, i, f'"{t:,}"') for u, i, t in CLEAN]), "log.csv"),
        rule="read as numbers",
    ),
    Case(
        name="an empty file and one of a header alone among full ones",
        make=files({"a.csv": b"", "b.csv": CSV, "c.csv": "user_id,x\n", "d.jsonl": "\n \n"}),
        rule="they are left out, and the command says so",
    ),
]

WITHOUT_TIMES = [
    Case(
        name="separated by runs of blanks",
        make=content("".join(f"  {u}  {i}\t{t} \n" for u, i, t in CLEAN), "log.csv"),
        source={"separator": "whitespace", "header": list(NAMES)},
        rule="`data.source.separator=whitespace`",
    ),
    Case(
        name="user and item a line, in order of time",
        make=content("".join(f"{u} {i}\n" for u, i, _ in CLEAN), "log.csv"),
        source={"separator": "whitespace", "header": ["user_id", "item_id"]},
        columns={"timestamp": ""},
        events=NUMBERED,
        rule="`data.columns.timestamp=`: the number of the row stands for its time",
    ),
    Case(
        name="the same over two files, with broken rows, in Parquet and text",
        make=files(
            {
                "a.csv": "".join(f"{u},{i}\n" for u, i, _ in [("user_id", "item_id", 0), *CLEAN[:9], ("", 1, 0)]),
                "b.parquet": lambda: frame(CLEAN[9:]),
            }
        ),
        columns={"timestamp": ""},
        events=[*NUMBERED[:9], *((u, i, n + 1) for u, i, n in NUMBERED[9:])],
        reasons={"null_user": 1},
    ),
    Case(
        name="a user and all items a line",
        make=content("1 10 11 12\n\n2\t10, 13\n1 14 \n", "log.txt"),
        source={"layout": "history_lines"},
        columns={"timestamp": ""},
        events=[(1, 10, 0), (1, 11, 1), (1, 12, 2), (2, 10, 3), (2, 13, 4), (1, 14, 5)],
        rule="`data.source.layout=history_lines`",
    ),
    Case(
        name="a user without items in such a file",
        make=content("1 10 11\n2\n", "log.txt"),
        source={"layout": "history_lines"},
        columns={"timestamp": ""},
        events=[(1, 10, 0), (1, 11, 1)],
        reasons={"null_item": 1},
    ),
]
