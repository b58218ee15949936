"""Headless Chromium, driven over the DevTools protocol with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
    ),
    "--remote-debugging-port=0",
)
_SECONDS = 60


def find_browser() -> str | None:
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One tab."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=_SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._socket.recv(4096)
        self._buffer = self._buffer.split(b"\r\n\r\n", 1)[1]
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # keys arrive from the first on
        # Time on the CPU, not of the clock: other load on the machine does not count.
        self.call("Performance.enable", timeDomain="threadTicks")
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        self._send(json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode())
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, path: Path, width: int = 1600, *, dark: bool = False) -> None:
        """Open a file in a window of a width and wait until it is drawn."""
        self.mouse("mouseMoved", 0, 0)  # a pointer left over a canvas would move there again in the new page
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=1000,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.run(
            "new Promise(done => { const look = () => document.readyState === 'complete' && "
            "location.href !== 'about:blank' ? requestAnimationFrame(() => requestAnimationFrame(done)) : "
            "setTimeout(look, 20); look(); })"
        )

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "failed"))
        return found["result"].get("value")

    def mouse(self, kind: str, x: float, y: float) -> None:
        button = "none" if kind == "mouseMoved" else "left"
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def key(self, name: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, text=name if len(name) == 1 else "")

    def picture(self, path: Path, *, most: int = 4000) -> None:
        """Write a screenshot of the whole page, cut below `most` pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(most, size["height"]), "scale": 1}
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def main_thread_seconds(self) -> float:
        """Time that tasks took since the tab was opened."""
        metrics = self.call("Performance.getMetrics")["metrics"]
        return float(next(item["value"] for item in metrics if item["name"] == "TaskDuration"))

    def requests(self) -> list[str]:
        """Addresses that the page asked for, but its own file and data in it."""
        sent = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("file:", "data:"))]

    def complaints(self) -> list[str]:
        """What went wrong in scripts."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def close(self) -> None:
        self._socket.close()

    def _send(self, payload: bytes) -> None:
        length = len(payload)
        head = struct.pack("!BB", 0x81, 0x80 | (length if length < 126 else 126 if length < 1 << 16 else 127))
        if length >= 126:
            head += struct.pack("!H" if length < 1 << 16 else "!Q", length)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[k % 4] for k, byte in enumerate(payload))
        self._socket.sendall(head + mask + masked)

    def _receive(self) -> bytes:
        payload = b""
        while True:
            first, second = self._read(2)
            length = second & 0x7F
            if length >= 126:
                (length,) = struct.unpack(
                    "!H" if length == 126 else "!Q", self._read(2 if length == 126 else 8)
                )
            payload += self._read(length)
            if first & 0x80:
                return payload

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            got = self._socket.recv(1 << 16)
            if not got:
                raise ConnectionError("the browser is gone")
            self._buffer += got
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, ended afterwards."""
    program = find_browser()
    assert program is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            address = None
            for line in process.stderr:
                if found := re.search(r"DevTools listening on (ws://\S+)", line):
                    address = found.group(1)
                    break
            assert address is not None, "the browser ended before it listened"
            tab = Browser(address)
            yield tab
            tab.close()
        finally:
            process.terminate()
            process.wait(timeout=30)
            process.stderr.close()
