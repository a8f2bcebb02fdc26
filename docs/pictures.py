"""Make the pictures in docs/pictures, from what the examples of the pages do.

    python docs/pictures.py [--check]

call.svg and call.html are what docs/examples/one_call.py has for its outcome; demo.html is the
report of `resilience demo`, which takes its minute; the PNGs are screenshots of the pages in
headless Chromium. With --check nothing is written; exit status 1 if the SVG or a page is out of
date (of demo.html its looks: each run has figures of its own), or a screenshot missing.
"""

from __future__ import annotations

import io
import itertools
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

from resilience import cli
from resilience.demo.style import STYLE

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
CALL, DEMO = PICTURES / "call.html", PICTURES / "demo.html"
SCHEMES = ("light", "dark")
WIDTHS = {"phone": 390, "desktop": 1280}
SCALES = {CALL: 2, DEMO: 1}  # pixels to each of the page's; the report is long
SHOTS = [(CALL, "phone", scheme) for scheme in SCHEMES] + [
    (DEMO, size, scheme) for size in WIDTHS for scheme in SCHEMES
]


def drawn() -> dict[Path, str]:
    """What the library draws, and where it goes."""
    with redirect_stdout(io.StringIO()):
        outcome = runpy.run_path(str(HERE / "examples" / "one_call.py"))["outcome"]
    return {PICTURES / "call.svg": outcome._repr_svg_(), CALL: outcome.to_html()}


def shot(page: Path, size: str, scheme: str) -> Path:
    """Where a screenshot goes."""
    return PICTURES / f"{page.stem}-{size}-{scheme}.png"


def main() -> int:
    files = drawn()
    if "--check" in sys.argv:
        stale = [path for path, text in files.items() if _text(path) != text]
        stale += [DEMO] * (STYLE not in (_text(DEMO) or ""))
        stale += [path for path in itertools.starmap(shot, SHOTS) if not path.exists()]
        for path in stale:
            sys.stderr.write(f"{path} is out of date: run make pictures\n")
        return int(bool(stale))
    PICTURES.mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    status = cli.main(["demo", "--report", str(DEMO)])
    if status:
        return status
    sys.path.append(str(HERE.parent / "tests"))
    from support.browser import Browser

    with Browser() as browser:
        for page, size, scheme in SHOTS:
            shown = browser.render(_text(page) or "", WIDTHS[size], scheme, scale=SCALES[page])
            shot(page, size, scheme).write_bytes(shown.png)
    return 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    raise SystemExit(main())
