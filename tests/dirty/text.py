"""Broken CSV and JSON lines."""

import gzip

import pyarrow as pa

from dirty.case import CLEAN, NAMES, START, Case, content, csv_text, json_text

CSV = csv_text()
JSON = json_text()
HALF = csv_text(CLEAN[:10])
STRINGS = [(f"{u}", i, t) for u, i, t in CLEAN]
SESSIONS = "".join(
    f'{{"session": {user}, "events": [%s]}}\n'
    % ", ".join(f'{{"aid": {i}, "ts": {t}, "type": "clicks"}}' for u, i, t in CLEAN if u == user)
    for user in range(1, 5)
)
CRLF = csv_text(CLEAN[15:], header=False).replace("\n", "\r\n")
NUMBERED = [(u, i, n) for n, (u, i, _) in enumerate(CLEAN)]
NESTED = {"user": "session", "item": "aid", "timestamp": "ts", "event_type": "type"}
ZSTD = pa.Codec("zstd").compress(CSV.encode(), asbytes=True)
COMPRESSED = gzip.compress(csv_text(CLEAN * 500).encode())


DELIMITED = [
    Case(name="CSV with CRLF", make=content(CSV.replace("\n", "\r\n"), "log.csv"), rule="both line ends are read"),
    Case(name="CSV with a byte order mark", make=content(b"\xef\xbb\xbf" + CSV.encode(), "log.csv"), rule="left out"),
    Case(name="CSV without a last line end", make=content(CSV.rstrip("\n"), "log.csv"), rule="the last row counts"),
    Case(
        name="CSV with blanks around ids",
        make=content(csv_text([(f" {u} ", f"\t{i}", f" {t}") for u, i, t in CLEAN]), "log.csv"),
        rule="in delimited text they are no part of an id",
    ),
    Case(
        name="CSV with quotes, doubled quotes, separators and line ends in fields",
        make=content(CSV + f'"a ""b"", c\nd",1,{START}\n', "log.csv"),
        events=[*STRINGS, ('a "b", c\nd', 1, START)],
        rule="RFC 4180",
    ),
    Case(
        name="a quote in a field that is not quoted",
        make=content(CSV + f'5"disk,1,{START}\n', "log.csv"),
        says=("log.csv cannot be read", "line 22: a quote", 'data.source.quote=""'),
    ),
    Case(
        name="the same, read without quoting",
        make=content(CSV + f'5"disk,1,{START}\n', "log.csv"),
        source={"quote": ""},
        events=[*STRINGS, ('5"disk', 1, START)],
        rule='`data.source.quote=""`: a quote is a character',
    ),
    Case(
        name="a quote that is never closed",
        make=content(HALF + f'"5,1,{START}\n' + csv_text(CLEAN[10:], header=False), "log.csv"),
        says=("log.csv cannot be read", "line 12: a quote", "never closed"),
    ),
    Case(
        name="a row of too few fields (also a cut last line)",
        make=content(CSV + "1,2\n1", "log.csv"),
        reasons={"null_item": 1, "null_timestamp": 1},
    ),
    Case(
        name="a row of too many fields",
        make=content(CSV + f"1,2,{START},x\n1,2,{START},x,y,z\n", "log.csv"),
        reasons={"too_many_fields": 2},
    ),
    Case(name="a blank line in CSV", make=content(CSV + "\n", "log.csv"), reasons={"null_user": 1}),
    Case(
        name="empty fields and words for nothing in CSV",
        make=content(CSV + f',2,{START}\n1,NULL,{START}\n1,2,\n1,2,\\N\n"",2,{START}\n', "log.csv"),
        reasons={"null_item": 1, "null_timestamp": 2, "null_user": 2},
    ),
    Case(
        name="bytes that are no UTF-8 in an id",
        make=content(CSV.encode() + f"caf\xe9,1,{START}\n".encode("latin-1"), "log.csv"),
        reasons={"user_not_utf8": 1},
    ),
    Case(
        name="bytes that are no UTF-8 in a column that is not read",
        make=content(CSV.replace("\n", ",caf\xe9\n").encode("latin-1"), "log.csv"),
        rule="they harm nobody",
    ),
    Case(name="CSV of zero bytes", make=content("", "log.csv"), says=("holds no rows",)),
    Case(
        name="CSV of a header alone", make=content("user_id,item_id,timestamp\n", "log.csv"), says=("holds no rows",)
    ),
    Case(
        name="a column named twice in CSV",
        make=content("user_id,item_id,timestamp,user_id\n1,2,3,4\n", "log.csv"),
        says=("log.csv has two columns 'user_id' (data.columns.user)",),
    ),
    Case(
        name="CSV without a header",
        make=content(csv_text(header=False), "log.csv"),
        says=("log.csv has no column 'user_id'", f"1, 10, {START}", "data.source.header=[user_id,item_id,timestamp]"),
    ),
    Case(
        name="CSV without a header, named",
        make=content(csv_text(header=False), "log.csv"),
        source={"header": list(NAMES)},
        rule="`data.source.header` names the columns",
    ),
    Case(
        name="CSV of fewer columns than data.source.header",
        make=content(csv_text([*CLEAN], header=False), "log.csv"),
        source={"header": ["user_id", "item_id", "rating", "timestamp"]},
        options={"max_bad_fraction": 0.1},
        says=("null_timestamp 20",),
    ),
    Case(
        name="separated by semicolons",
        make=content(csv_text(separator=";"), "log.csv"),
        source={"separator": ";"},
        rule="`data.source.separator`",
    ),
    Case(
        name="separated by semicolons, not told",
        make=content(csv_text(separator=";"), "log.csv"),
        says=("log.csv has no column 'user_id'", "user_id;item_id;timestamp"),
    ),
    Case(name="separated by tabs", make=content(csv_text(separator="\t"), "log.tsv"), rule="by the ending .tsv"),
    Case(
        name="separated by `::`",
        make=content(csv_text(separator="::", header=False), "ratings.dat"),
        source={"layout": "delimited", "separator": "::", "header": list(NAMES)},
        rule="any number of characters",
    ),
    Case(
        name="separated by `::`, jagged",
        make=content(csv_text(separator="::") + "1::2\n1::2::3::4\n\n", "ratings.csv"),
        source={"separator": "::"},
        reasons={"null_timestamp": 1, "too_many_fields": 1},
    ),
    Case(name="CSV in gzip", make=content(gzip.compress(CSV.encode()), "log.csv.gz"), rule="read as it is"),
    Case(
        name="CSV in gzip of two members",
        make=content(
            gzip.compress(HALF.encode()) + gzip.compress(csv_text(CLEAN[10:], header=False).encode()), "log.csv.gz"
        ),
        rule="both are read",
    ),
    Case(name="CSV in zstandard", make=content(ZSTD, "log.csv.zst"), rule="read as it is"),
    Case(
        name="gzip that is cut off",
        make=content(COMPRESSED[: len(COMPRESSED) // 2], "log.csv.gz"),
        says=("log.csv.gz cannot be read",),
    ),
    Case(
        name="a zip archive by the name of CSV",
        make=content(b"PK\x03\x04" + bytes(40), "log.csv"),
        says=("log.csv is a zip archive",),
    ),
]

JSON_LINES = [
    Case(name="JSON lines in gzip", make=content(gzip.compress(JSON.encode()), "log.jsonl.gz"), rule="read as it is"),
    Case(
        name="JSON lines by the name of .json", make=content(JSON, "log.json"), rule="where the file itself is named"
    ),
    Case(
        name="a JSON line that is cut off, or none",
        make=content(JSON + '{"user_id": 1, "item\nnot json\nnull\n5\n[1]\n', "log.jsonl"),
        reasons={"bad_json": 5},
    ),
    Case(
        name="blank lines among JSON",
        make=content("\n" + JSON.replace("\n", "\n \n"), "log.jsonl"),
        rule="a blank line is no row",
    ),
    Case(
        name="JSON with CRLF and a byte order mark",
        make=content(b"\xef\xbb\xbf" + JSON.replace("\n", "\r\n").encode(), "log.jsonl"),
        rule="left out",
    ),
    Case(
        name="JSON with record separators (RFC 7464)",
        make=content('{"user_id": 1}\x1ex\n\x1e' + JSON.replace("\n", "\n\x1e"), "log.jsonl"),
        reasons={"bad_json": 1},
    ),
    Case(
        name="JSON with a key missing or null",
        make=content(
            JSON + f'{{"user_id": 1, "timestamp": {START}}}\n{{"user_id": null, "item_id": 1}}\n', "log.jsonl"
        ),
        reasons={"null_item": 1, "null_user": 1},
    ),
    Case(
        name="JSON with a key that no line has",
        make=content(JSON, "log.jsonl"),
        columns={"item": "asin"},
        says=("log.jsonl has no column 'asin' (data.columns.item)", "user_id, item_id, timestamp"),
    ),
    Case(
        name="a key that comes after thousands of lines",
        make=content('{"user_id": 1, "item_id": 2, "timestamp": 3}\n' * 1500 + '{"x": 1}\n', "log.jsonl"),
        events=[(1, 2, 3)] * 1500,
        reasons={"null_user": 1},
    ),
    Case(
        name="JSON ids as text in some lines",
        make=content(JSON.replace('"item_id": 12,', '"item_id": "12",'), "log.jsonl"),
        rule='7 and "7" are one id in JSON',
    ),
    Case(
        name="JSON with a fraction or a boolean as id",
        make=content(JSON + f'{{"user_id": 7.5, "item_id": true, "timestamp": {START}}}\n', "log.jsonl"),
        events=[*((str(u), str(i), t) for u, i, t in CLEAN), ("7.5", "true", START)],
        rule="its text is the id",
    ),
    Case(
        name="JSON with an object or a list as id",
        make=content(JSON + f'{{"user_id": [1], "item_id": 1, "timestamp": {START}}}\n', "log.jsonl"),
        reasons={"bad_json": 1},
    ),
    Case(
        name="JSON with NaN",
        make=content(JSON + '{"user_id": 1, "item_id": 1, "timestamp": NaN}\n', "log.jsonl"),
        reasons={"bad_json": 1},
    ),
    Case(
        name="JSON with one key twice",
        make=content(JSON.replace("}", ', "user_id": 9}'), "log.jsonl"),
        rule="the first counts",
    ),
    Case(
        name="JSON with integers beyond 2^53",
        make=content(JSON + f'{{"user_id": {2**63 - 1}, "item_id": 1, "timestamp": {START}}}\n', "log.jsonl"),
        events=[*CLEAN, (2**63 - 1, 1, START)],
        rule="exact",
    ),
    Case(
        name="JSON with bytes that are no UTF-8",
        make=content(JSON.encode() + b'{"user_id": "\xff", "item_id": 1, "timestamp": 5}\n', "log.jsonl"),
        reasons={"user_not_utf8": 1},
    ),
    Case(
        name="one JSON array", make=content("[" + JSON.replace("\n", ",\n") + "]", "log.json"), says=("JSON array",)
    ),
    Case(
        name="a comment before the header",
        make=content("# exported on Friday\n" + CSV, "log.csv"),
        says=("log.csv has no column 'user_id'", "begins with a comment, '# exported on Friday'"),
    ),
    Case(
        name="a JSON array of one line, as pandas writes records",
        make=content("[" + JSON.strip().replace("\n", ",") + "]", "log.json"),
        says=("log.json holds a JSON array", "jq -c '.[]' log.json"),
    ),
    Case(
        name="a JSON array, the brackets in lines of their own",
        make=content("[\n" + JSON.strip().replace("\n", ",\n") + "\n]\n", "log.json"),
        says=("log.json holds a JSON array", "jq -c '.[]' log.json"),
    ),
    Case(
        name="one JSON object around the events",
        make=content('{"total": 8, "data": [' + JSON.strip().replace("\n", ",") + "]}", "log.json"),
        says=("log.json holds one JSON object, whose 'data' is a list of events", "jq -c '.[\"data\"][]' log.json"),
    ),
    Case(
        name="a JSON array in each line",
        make=content("[1, 2, 3]\n[4, 5, 6]\n", "log.jsonl"),
        says=("log.jsonl holds a JSON array in each line, whose values have no names",),
    ),
    Case(
        name="a JSON object of columns, as pandas writes it by default",
        make=content('{"user_id":{"0":1,"1":2},"item_id":{"0":1,"1":2},"timestamp":{"0":5,"1":6}}', "log.json"),
        says=("log.json holds a JSON object of whole columns", "orient='records', lines=True"),
    ),
    Case(
        name="JSON objects over several lines",
        make=content(JSON.replace("{", "{\n ").replace(", ", ",\n "), "log.json"),
        says=("log.json holds JSON objects over several lines (pretty-printed)", "jq -c . log.json"),
    ),
    Case(
        name="Python dicts",
        make=content(JSON.replace('"', "'"), "log.jsonl"),
        says=("log.jsonl holds Python dicts", "ast.literal_eval"),
    ),
    Case(
        name="5,000 nested brackets in a line of JSON",
        make=content("[" * 5000 + "]" * 5000 + "\n" + JSON + '{"a":' + "[" * 5000 + "]" * 5000 + "}\n", "log.jsonl"),
        reasons={"bad_json": 2},
    ),
    Case(
        name="JSON lines that end with carriage returns alone",
        make=content(JSON.replace("\n", "\r"), "log.jsonl"),
        rule="they end rows",
    ),
    Case(
        name="sessions with nested events",
        make=content(SESSIONS, "log.jsonl"),
        source={"nested_events": "events"},
        columns=NESTED,
        rule="`data.source.nested_events` names their key",
    ),
    Case(
        name="sessions with no events (no rows), without their key, and broken ones",
        make=content(
            SESSIONS + '{"session": 5, "events": []}\n{"session": 6}\n{"session": 7, "events": [{"a', "log.jsonl"
        ),
        source={"nested_events": "events"},
        columns=NESTED,
        reasons={"bad_json": 1, "null_item": 1},
    ),
]
