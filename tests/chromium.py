"""A headless Chromium, asked through its pipe (Chrome DevTools Protocol): what a page looks like and complains of."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), "")
needs_chromium = pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed: apt-get install chromium")


@dataclass(slots=True)
class View:
    """A page as it was shown."""

    width: int
    """Pixels that its content is wide."""
    background: str
    text: str
    complaints: list[str] = field(default_factory=list)
    """What the console said, and errors of the page."""
    requests: list[str] = field(default_factory=list)
    """Addresses that were asked for."""
    image: bytes = b""


class Browser:
    """The browser's end of a pipe."""

    def __init__(self, ask: int, answers: int) -> None:
        self._ask, self._answers, self._text, self._number = ask, answers, b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **values: Any) -> dict[str, Any]:
        """The result of a command; what happens meanwhile is added to :attr:`events`."""
        self._number += 1
        request = {
            "id": self._number,
            "method": method,
            "params": values,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._ask, json.dumps(request).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait_for(self, method: str) -> None:
        """Return when the event has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._text:
            content = os.read(self._answers, 2**20)
            assert content, "the browser has ended"
            self._text += content
        line, self._text = self._text.split(b"\0", 1)
        return json.loads(line)

    def view(self, page: Path, width: int, scheme: str, height: int = 800) -> View:
        """``page`` on a screen ``width`` pixels wide, ``scheme`` being light or dark."""
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", session, **screen)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", session, features=features)
        self.call("Page.navigate", session, url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

        def value(expression: str) -> Any:
            return self.call("Runtime.evaluate", session, expression=expression, returnByValue=True)["result"][
                "value"
            ]

        found = View(
            width=value("document.documentElement.scrollWidth"),
            background=value("getComputedStyle(document.body).backgroundColor"),
            text=value("document.body.innerText"),
            image=base64.b64decode(self.call("Page.captureScreenshot", session, format="png")["data"]),
        )
        for event in self.events:
            if event.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.complaints.append(json.dumps(event["params"]))
            if event.get("method") == "Network.requestWillBeSent":
                found.requests.append(event["params"]["request"]["url"])
        self.call("Target.closeTarget", targetId=target)
        return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium that ends with the block."""
    (their_input, ask), (answers, their_output) = os.pipe(), os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        # It reads from descriptor 3 and writes to 4.
        command = [
            "bash",
            "-c",
            f'exec "$0" "$@" 3<&{their_input} 4>&{their_output}',
            PROGRAM,
            *flags,
            f"--user-data-dir={folder}",
        ]
        process = subprocess.Popen(
            command, pass_fds=(their_input, their_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_input)
        os.close(their_output)
        try:
            yield (chromium := Browser(ask, answers))
            chromium.call("Browser.close")  # its own processes end with it, and write no more
            process.wait()
        finally:
            process.kill()
            process.wait()
            os.close(ask)
            os.close(answers)
