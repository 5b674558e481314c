"""A headless Chromium that a test drives through its DevTools pipe, without any package."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Page:
    """A page of the browser: what it logs, its scripts' values, real keys and clicks."""

    def __init__(self, write: int, read: int):
        self.write, self.read, self.buffer = write, read, b""
        self.number, self.session, self.complaints = 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events on the way are looked at."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self._event(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, address: str) -> None:
        """Goes to an address and waits until everything is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        while self.value("document.readyState") != "complete":
            pass

    def value(self, script: str) -> Any:
        """What a script gives in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def key(self, name: str) -> None:
        """A key pressed and let go."""
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, " ": 32}[name]
        text = {"text": name} if name == " " else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            more = os.read(self.read, 2**16)
            assert more, "the browser ended"
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def _event(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method", ""), event.get("params", {})
        address = parameters.get("request", {}).get("url", "")
        fetched = method == "Network.requestWillBeSent" and not address.startswith(
            ("file:", "data:", "about:")
        )
        if fetched or method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(event)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A page of a new browser whose profile is in the folder; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    # The browser takes commands from file 3 and answers to file 4.
    command = f'exec "$0" "$@" 3<&{theirs_read} 4>&{theirs_write}'
    process = subprocess.Popen(
        ["bash", "-c", command, program, *options, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(theirs_read, theirs_write),
        stderr=subprocess.DEVNULL,
    )
    try:
        os.close(theirs_read)
        os.close(theirs_write)
        yield Page(ours_write, ours_read)
    finally:
        os.close(ours_write)
        os.close(ours_read)
        process.terminate()
        process.wait(timeout=30)
