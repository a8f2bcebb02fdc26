"""A headless Chromium that renders pages: where their texts are, and a picture of them.

    with Browser() as browser:
        page = browser.render(html, width=390, scheme="dark")
        assert page.problems() == []  # cut, overlapping and pale texts
        Path("page.png").write_bytes(page.png)

`render` takes a whole page of HTML, or an SVG (begun by `<svg`), which is put into an empty page.
The browser is Debian's (tests/support/chromium.sh installs it) or any Chromium or Chrome found on
the PATH; the environment variable CHROMIUM names another. It is spoken to through a pipe, by the
DevTools protocol. One browser can render any number of pages, one after the other.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from attrs import frozen

__all__ = ["Browser", "Page", "Text", "found"]

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # it shows only what the tests give it, and may be run by root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Its end of the pipe is 3 for what it reads and 4 for what it writes.
START = 'exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null'

# Every piece of text that is shown, with the box around its glyphs, the part of it that all its
# ancestors leave visible, its colour, and the colour under it.
MEASURE = r"""
(() => {
  const found = [];
  const colour = (element, style) => element.ownerSVGElement ? style.fill : style.color;
  const ground = (element, x, y) => {
    for (const under of document.elementsFromPoint(x, y)) {
      if (under === element || under.tagName === "text") continue;
      const style = getComputedStyle(under);
      const own = under.ownerSVGElement ? style.fill : style.backgroundColor;
      if (own !== "none" && own !== "rgba(0, 0, 0, 0)") return own;
    }
    return "rgb(255, 255, 255)";
  };
  const visible = (element, box) => {
    let [left, top, right, bottom] = [
      0, 0, document.documentElement.clientWidth, document.documentElement.scrollHeight];
    for (let each = element; each; each = each.parentElement) {
      const clips = each.tagName === "svg" || getComputedStyle(each).overflow !== "visible";
      if (!clips || each === document.body || each === document.documentElement) continue;
      const edge = each.getBoundingClientRect();
      [left, top] = [Math.max(left, edge.left), Math.max(top, edge.top)];
      [right, bottom] = [Math.min(right, edge.right), Math.min(bottom, edge.bottom)];
    }
    return box.left >= left - 1 && box.top >= top - 1 &&
      box.right <= right + 1 && box.bottom <= bottom + 1;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || element.closest("title, style, script")) continue;
    const style = getComputedStyle(element);
    const range = document.createRange();
    range.selectNodeContents(node);
    // A range does not know of a text that is made to fit.
    const fitted = element.hasAttribute("textLength");
    for (const box of fitted ? [element.getBoundingClientRect()] : range.getClientRects()) {
      if (!box.width || style.visibility !== "visible") continue;
      const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
      found.push({
        text: node.data.trim(), x: box.left, y: box.top, width: box.width, height: box.height,
        whole: visible(element, box), colour: colour(element, style),
        ground: ground(element, x, y), size: parseFloat(style.fontSize),
      });
    }
  }
  return found;
})()
"""
HEIGHT = "Math.ceil(document.documentElement.getBoundingClientRect().height)"


@frozen
class Text:
    """A line of text: its box in pixels, whether all of it is visible, and its colours."""

    text: str
    x: float
    y: float
    width: float
    height: float
    whole: bool
    colour: str
    ground: str
    size: float

    def __str__(self) -> str:
        return f"{self.text!r} at {self.x:.0f}, {self.y:.0f}"

    def overlaps(self, other: Text) -> bool:
        """By more than a pixel each way: boxes are a little larger than glyphs."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return across > 1 and down > 1

    @property
    def contrast(self) -> float:
        """Of the text with what is under it, as WCAG counts it: from 1 to 21."""
        light, dark = sorted(map(_luminance, (self.colour, self.ground)), reverse=True)
        return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour[4:-1].split(",")]  # "rgb(1, 2, 3)"
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(c * weight for c, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


@frozen
class Page:
    """A page as it was shown: its size, its texts in the order of the page, its picture if asked
    for."""

    width: int
    height: int
    texts: tuple[Text, ...]
    png: bytes

    def overlaps(self) -> Iterator[tuple[Text, Text]]:
        """Each two texts that lie on one another."""
        ordered = sorted(self.texts, key=lambda text: text.y)
        for index, one in enumerate(ordered):
            for other in itertools.islice(ordered, index + 1, None):
                if other.y >= one.y + one.height:
                    break
                if one.overlaps(other):
                    yield one, other

    def problems(self, contrast: float = 4.5) -> list[str]:
        """What keeps somebody from reading it, in words: cut, overlapping or pale texts."""
        return [
            *(f"cut: {text}" for text in self.texts if not text.whole),
            *(f"overlap: {one}, {other}" for one, other in self.overlaps()),
            *(
                f"pale: {text}, {text.contrast:.2f}"
                for text in self.texts
                if text.contrast < contrast
            ),
        ]


def found() -> str | None:
    """The browser's program, if there is one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A browser of its own, with an empty profile; `close` ends it."""

    def __init__(self) -> None:
        program = found()
        if program is None:
            raise RuntimeError("no Chromium: run tests/support/chromium.sh")
        self._profile = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            ["sh", "-c", START, "sh", program, *FLAGS, f"--user-data-dir={self._profile.name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._next = itertools.count(1).__next__
        self._rest = b""
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = self._send(
            "Target.attachToTarget", targetId=target, flatten=True
        )["sessionId"]
        self._frame = self._send("Page.getFrameTree")["frameTree"]["frame"]["id"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def render(
        self,
        html: str,
        width: int = 1280,
        scheme: str = "light",
        *,
        picture: bool = True,
        scale: int = 1,
    ) -> Page:
        """Show a page in a window of that width, and high enough for all of it.

        `scheme` is what the page is told that its reader prefers, "light" or "dark". Taking a
        `picture` takes longer than all the rest; `scale` is how many of its pixels there are to
        each of the page's.
        """
        if html.startswith("<svg"):
            html = f"<!doctype html><body style='margin: 0'>{html}</body>"
        metrics = {"width": width, "deviceScaleFactor": scale, "mobile": False}
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self._send("Emulation.setEmulatedMedia", features=preferred)
        self._send("Emulation.setDeviceMetricsOverride", height=100, **metrics)
        self._send("Page.setDocumentContent", frameId=self._frame, html=html)
        height = max(self._value(HEIGHT), 1)
        self._send("Emulation.setDeviceMetricsOverride", height=height, **metrics)
        texts = tuple(Text(**facts) for facts in self._value(MEASURE))
        png = self._screenshot() if picture else b""
        return Page(width, height, texts, png)

    def close(self) -> None:
        """End the browser, and wait for it."""
        self._session = None
        self._send("Browser.close")
        self._process.communicate()
        self._profile.cleanup()

    def _screenshot(self) -> bytes:
        shot = self._send("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])

    def _value(self, expression: str) -> Any:
        result = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"]["value"]

    def _send(self, method: str, **params: Any) -> Any:
        """A command, and its result. Messages end with a zero byte, both ways."""
        number = self._next()
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        session = getattr(self, "_session", None)
        if session is not None:
            message["sessionId"] = session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> bytes:
        assert self._process.stdout is not None
        while b"\0" not in self._rest:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise RuntimeError("the browser has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return message
