"""A headless Chromium spoken to over a pipe (Chrome DevTools Protocol): just enough to open a page and look at it."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    "--disable-extensions", "--remote-debugging-pipe",
)  # fmt: skip


@dataclass
class Sight:
    """A page that has been opened, and everything it did meanwhile."""

    browser: "Browser"
    problems: list[str] = field(default_factory=list)
    """Console errors and warnings, uncaught exceptions, dialogs."""
    requests: list[str] = field(default_factory=list)
    """Addresses that were asked for."""

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        answer = self.browser.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript condition holds in the page."""
        deadline = time.monotonic() + 60
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise AssertionError(f"{condition} did not come true within a minute; the page said {self.problems}.")
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        shot = self.browser.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """One Chromium with one tab."""

    def __init__(self, process: subprocess.Popen[bytes], write_to: int, read_from: int) -> None:
        self._process, self._write_to, self._read_from = process, write_to, read_from
        self._buffer, self._number, self._session = b"", 0, ""
        self._sight = Sight(self)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Sight:
        """Open a file at a width, in a colour scheme, and wait until page.js says that it is drawn."""
        self.set_scheme(dark=dark)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url="about:blank")
        self._sight = Sight(self)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._sight.wait_for("document.documentElement?.dataset.ready === 'true'")
        return self._sight

    def set_scheme(self, *, dark: bool) -> None:
        """Say what prefers-color-scheme answers, for this page and later ones."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result, noting the events that arrive before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write_to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read_from], [], [], 60)[0]:
                raise AssertionError("Chromium has not answered for a minute.")
            received = os.read(self._read_from, 1 << 20)
            if not received:
                raise AssertionError(f"Chromium ended with status {self._process.wait()}.")
            self._buffer += received
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, what = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self._sight.requests.append(what["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self._sight.problems.append(json.dumps(what["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self._sight.problems.append(json.dumps(what["args"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self._sight.problems.append(what["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self._sight.problems.append(f"dialog: {what['message']}")
            self._send_and_forget("Page.handleJavaScriptDialog", accept=True)

    def _send_and_forget(self, method: str, **parameters: Any) -> None:
        # a dialog blocks the call in progress, so its answer cannot be waited for here
        message = {"id": -1, "method": method, "params": parameters, "sessionId": self._session}
        os.write(self._write_to, json.dumps(message).encode() + b"\0")


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start Chromium with a fresh profile directory; it is ended with the block."""
    assert CHROMIUM
    to_child, write_to = os.pipe()
    read_from, from_child = os.pipe()
    # Chromium reads commands from descriptor 3 and answers on 4, which only a shell can arrange without a race
    command = f'exec "$@" 3<&{to_child} 4>&{from_child}'
    arguments = ["bash", "-c", command, "chromium", CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        arguments, pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_child)
    os.close(from_child)
    try:
        yield Browser(process, write_to, read_from)
    finally:
        os.close(write_to)  # Chromium ends when the pipe does
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(read_from)
