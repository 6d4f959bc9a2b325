"""The process: it loads, takes newer exports, survives a kill with every event, and ends without losing a request."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError
from launch.cli import main
from launch.serve.export_folder import read_export
from served_client import Exported, ask

ROOT = Path(__file__).resolve().parents[3]


class Process:
    """A server and its address."""

    def __init__(self, *overrides: str) -> None:
        command = [sys.executable, "-m", "launch", "serve", *overrides, "serve.port=0"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
        self.popen = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.url = ""
        self.wait_for("ready: ")
        self.url = re.findall(r"http://[0-9.:]+", "".join(self.lines))[0]

    def wait_for(self, text: str) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError("".join(self.lines))

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@contextmanager
def server(*overrides: str) -> Iterator[Process]:
    process = Process(*overrides)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


def copy_of(exported: Exported, folder: Path) -> Path:
    return Path(shutil.copytree(exported.folder, folder / "export"))


@pytest.mark.slow
def test_every_acknowledged_event_outlives_a_kill_and_a_stop_answers_what_is_under_way(
    exported: Exported, tmp_path: Path
) -> None:
    export = copy_of(exported, tmp_path)
    item = json.loads((export / "items.jsonl").read_text().splitlines()[0])
    acknowledged: list[int] = []
    is_enough = threading.Event()

    def post(process: Process, first: int) -> None:
        for number in range(first, first + 10_000, 4):
            try:
                process.post("/events", {"user_id": number, "item_id": item, "timestamp": number})
            except (OSError, urllib.error.URLError):
                return
            acknowledged.append(number)
            if len(acknowledged) == 300:
                is_enough.set()

    with server(f"export={export}") as process:
        threads = [threading.Thread(target=post, args=(process, first)) for first in range(4)]
        for thread in threads:
            thread.start()
        is_enough.wait()
        process.popen.kill()
        for thread in threads:
            thread.join()
    with server(f"export={export}") as process:
        for number in acknowledged:
            answer = process.post("/recommend", {"user_id": number, "k": 1})
            assert answer["history"] == {"source": "known", "events": 1, "unknown_items": 0}
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for("answers from now on")
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait() == 0


def test_a_broken_export_is_refused_and_the_older_model_goes_on(exported: Exported, tmp_path: Path) -> None:
    export = copy_of(exported, tmp_path)
    whole = (export / "item_vectors.safetensors").read_bytes()

    async def test(client: Any) -> list[Any]:
        before = (await client.get("/ready")).json()["model_version"]
        (export / "item_vectors.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        refused = await client.post("/reload")
        answer = await client.post("/recommend", json={"user_id": 1})
        (export / "item_vectors.safetensors").write_bytes(whole)
        again = await client.post("/reload")
        return [before, refused, answer.json()["model_version"], again.json()]

    before, refused, after, again = ask(export, test)
    assert refused.status_code == 409
    assert "item_vectors.safetensors" in refused.json()["errors"][0]["message"]
    assert before == after
    assert again == {"model_version": before, "changed": False}


@pytest.mark.parametrize("name", ["model.json", "encoder.pt2", "items.jsonl", "items.parquet", "example.json"])
@pytest.mark.parametrize("change", ["missing", "cut", "flipped"])
def test_a_damaged_file_is_named(exported: Exported, tmp_path: Path, name: str, change: str) -> None:
    path = copy_of(exported, tmp_path) / name
    content = path.read_bytes()
    if change == "missing":
        path.unlink()
    elif change == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    with pytest.raises(DataError, match=re.escape(name)):
        read_export(path.parent)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "shardrec serve export="),
        (["export=a", "serve.host=0.0.0.0"], "serve.token_file"),
        (["export=a", "serve.token_file=no/such"], "serve.token_file"),
        (["export=a", "serve.prt=1"], "serve.port"),
        (["export=a", "serve.port=70000"], "serve.port"),
    ],
)
def test_a_wrong_key_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARDREC_SERVE_TOKEN", raising=False)
    assert main(["serve", *words, "--dry-run"]) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1


def test_another_machine_reaches_it_only_with_a_token_or_by_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARDREC_SERVE_TOKEN", raising=False)
    (tmp_path / "token").write_text("s3cret-token\n")
    words = ["serve", "export=a", "serve.host=0.0.0.0", "--dry-run"]
    assert main([*words, "serve.allow_no_token=true"]) == 0
    assert main([*words, f"serve.token_file={tmp_path / 'token'}"]) == 0
    monkeypatch.setenv("SHARDREC_SERVE_TOKEN", "s3cret-token")
    assert main(words) == 0
    assert "s3cret" not in "".join(capsys.readouterr())
