"""Recommends with the files of this folder; needs torch and safetensors alone. Run: python example.py"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parent
MODEL = json.loads((FOLDER / "model.json").read_text())
TABLES, MAX_HISTORY = MODEL["tables"], MODEL["preprocessing"]["max_history"]


def load_table(name: str) -> tuple[list[Any], dict[Any, int], torch.Tensor]:
    """Row of each raw id, and the float32 rows; int8 rows have a scale each."""
    raw_ids = [json.loads(line) for line in (FOLDER / TABLES[name]["ids"]).open(encoding="utf-8")]
    found = load_file(FOLDER / TABLES[name]["file"])
    rows = found[TABLES[name]["tensor"]].float() * found.get("scale", torch.ones(1))[:, None]
    return raw_ids, {raw: row for row, raw in enumerate(raw_ids)}, rows


RAW_ITEMS, ROW_OF_ITEM, ITEM_VECTORS = load_table("item")
_, ROW_OF_USER, USER_VECTORS = load_table("user") if "user" in TABLES else ([], {}, None)
ENCODER = torch.export.load(FOLDER / MODEL["program"]["file"]).module()


@torch.no_grad()
def recommend(history: list[Any], k: int = 10, seen: Any = (), user: Any = None, features: Any = None) -> list[Any]:
    """The k best (raw item, score) after the raw items of ``history``, oldest first, without those of ``seen``."""
    events = [n for n, item in enumerate(history) if item in ROW_OF_ITEM][-MAX_HISTORY:]
    rows = [ROW_OF_ITEM[history[n]] for n in events]
    if not rows:
        return []
    inputs: dict[str, Any] = {"item_vectors": ITEM_VECTORS[rows][None], "lengths": torch.tensor([len(rows)])}
    if USER_VECTORS is not None:
        inputs["user_vectors"] = USER_VECTORS[[ROW_OF_USER[user]]]
    if features:
        inputs["features"] = {name: torch.tensor([[each[n] for n in events]]) for name, each in features.items()}
    scores = ITEM_VECTORS @ ENCODER(**inputs)[0]
    scores[[ROW_OF_ITEM[item] for item in seen if item in ROW_OF_ITEM]] = float("-inf")
    best = scores.sort(descending=True, stable=True).indices[:k].tolist()
    return [(RAW_ITEMS[row], float(scores[row])) for row in best if scores[row] > float("-inf")]


if __name__ == "__main__":
    EXAMPLES = json.loads((FOLDER / "example.json").read_text())["examples"]
    SAME = 0
    for each in EXAMPLES:
        given = {name: each[name] for name in ("history", "seen", "user", "features")}
        found = [item for item, _ in recommend(**given, k=len(each["recommended"]))]
        SAME += found == each["recommended"]
        print(f"{each['user']}: {found}")
    print(f"{SAME} of {len(EXAMPLES)} lists are those of the run")
    raise SystemExit(len(EXAMPLES) != SAME)
