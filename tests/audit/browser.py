"""A browser driven over W3C WebDriver with plain HTTP: https://www.w3.org/TR/webdriver2/."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

KEYS = {"enter": "\ue007", "escape": "\ue00c", "down": "\ue015", "up": "\ue013"}
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1400")


class Browser:
    """One session; its console log and network log are kept."""

    def __init__(self, driver: str, session: str) -> None:
        self.url = f"{driver}/session/{session}"

    def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        ask("POST", f"{self.url}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function's body returns in the page."""
        return ask("POST", f"{self.url}/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        ask("POST", f"{self.url}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, css: str) -> None:
        """Click the element a person would."""
        found = ask("POST", f"{self.url}/element", {"using": "css selector", "value": css})
        ask("POST", f"{self.url}/element/{next(iter(found.values()))}/click", {})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries of the `browser` (console) or `performance` (network) log since the last call."""
        entries: list[dict[str, Any]] = ask("POST", f"{self.url}/se/log", {"type": kind})
        return entries

    def requested(self) -> list[str]:
        """Addresses the page asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path) -> None:
        """Save what is visible as a PNG."""
        path.write_bytes(base64.b64decode(ask("GET", f"{self.url}/screenshot")))


@contextmanager
def browser(driver: str, *arguments: str) -> Iterator[Browser]:
    """A fresh session of a chromedriver that listens at `driver`."""
    options = {"args": [*ARGUMENTS, *arguments]}
    logs = {"browser": "ALL", "performance": "ALL"}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
    session = ask("POST", f"{driver}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
    opened = Browser(driver, session)
    try:
        yield opened
    finally:
        ask("DELETE", opened.url)


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until `condition` gives something true; that is returned.

    Raises:
        TimeoutError: it never did.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.1)


def is_ready(driver: str) -> bool:
    """Whether the driver answers."""
    try:
        return bool(ask("GET", f"{driver}/status")["ready"])
    except (OSError, URLError):
        return False


def ask(method: str, url: str, body: Any = None) -> Any:
    """Send one WebDriver command and give its value."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]
    except HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()[:500]}") from error
