"""Make the pictures in docs/pictures, from what the examples of the pages do.

    python docs/pictures.py [--check]

call.svg and call.html are what docs/examples/one_call.py has for its outcome; the PNGs are
screenshots of call.html in headless Chromium, of a phone's width. With --check nothing is written;
exit status 1 if the SVG or the page is out of date, or a screenshot missing.
"""

from __future__ import annotations

import io
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
PHONE = 390
SHOTS = {scheme: PICTURES / f"call-phone-{scheme}.png" for scheme in ("light", "dark")}


def drawn() -> dict[Path, str]:
    """What the library draws, and where it goes."""
    with redirect_stdout(io.StringIO()):
        outcome = runpy.run_path(str(HERE / "examples" / "one_call.py"))["outcome"]
    return {PICTURES / "call.svg": outcome._repr_svg_(), PICTURES / "call.html": outcome.to_html()}


def main() -> int:
    files = drawn()
    if "--check" in sys.argv:
        stale = [path for path, text in files.items() if _text(path) != text]
        stale += [path for path in SHOTS.values() if not path.exists()]
        for path in stale:
            sys.stderr.write(f"{path} is out of date: run make pictures\n")
        return int(bool(stale))
    PICTURES.mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    sys.path.append(str(HERE.parent / "tests"))
    from support.browser import Browser

    with Browser() as browser:
        for scheme, path in SHOTS.items():
            page = browser.render(files[PICTURES / "call.html"], PHONE, scheme, scale=2)
            path.write_bytes(page.png)
    return 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    raise SystemExit(main())
