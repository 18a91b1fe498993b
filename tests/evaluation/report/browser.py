"""A headless Chromium, driven through its driver's plain HTTP interface (WebDriver): no package is needed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
#: Keys by name, as WebDriver writes them.
KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " \
    "--disable-component-update --disable-sync --disable-dev-shm-usage --force-device-scale-factor=1"  # fmt: skip


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return _request(f"{self._session}/{path}", body)

    def open(self, path: Path, fragment: str = "", width: int = 1280, height: int = 900) -> None:
        """Open a file, afresh."""
        self._call("window/rect", {"width": width, "height": height})
        self._call("url", {"url": "about:blank"})
        self._call("url", {"url": path.resolve().as_uri() + (f"#{fragment}" if fragment else "")})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a JavaScript function in the page and give what it returns (awaited)."""
        return self._call("execute/sync", {"script": script, "args": list(arguments)})

    def _find(self, selector: str) -> str:
        return self._call("element", {"using": "css selector", "value": selector})[_ELEMENT]

    def text(self, selector: str) -> str:
        """Give the visible text of an element."""
        return self._call(f"element/{self._find(selector)}/text")

    def click(self, selector: str) -> None:
        """Click in the middle of an element."""
        self._call(f"element/{self._find(selector)}/click", {})

    def press(self, selector: str, keys: str) -> None:
        """Type ``keys`` into an element."""
        self._call(f"element/{self._find(selector)}/value", {"text": keys})

    def errors(self) -> list[str]:
        """Give what the page complained of since the last call."""
        entries = self._call("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """Write what the window shows."""
        path.write_bytes(base64.b64decode(self._call("screenshot")))


def _request(address: str, body: dict[str, Any] | None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{address}: {error.read().decode()[:500]}") from error


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start driver and browser with an empty profile; stop both at the end."""
    driver = subprocess.Popen([str(DRIVER), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert driver.stdout is not None
    session = None
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        port = line.split("port")[1].strip(" .\n")
        server = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*_QUIET.split(), f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        started = _request(f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{server}/session/{started['sessionId']}"
        yield Browser(session)
    finally:
        if session:
            _request(session, None, "DELETE")
        driver.terminate()
        driver.wait(10)
