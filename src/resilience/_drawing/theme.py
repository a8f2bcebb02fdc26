"""Colours and fonts of pictures and pages, for light and dark; and what each page begins with."""

from __future__ import annotations

from string import Template

from .texts import escape

__all__ = ["DARK", "LIGHT", "MONOSPACED", "document"]

LIGHT = {
    "ground": "#ffffff",
    "edge": "#d1d9e0",
    "grid": "#e6eaef",
    "text": "#1f2328",
    "soft": "#59636e",
    "bad": "#b4232c",
    "answered": "#2f6fbd",
    "failed": "#c9444d",
    "wait": "#818b98",
}
DARK = {
    "ground": "#0d1117",
    "edge": "#30363d",
    "grid": "#21262d",
    "text": "#e6edf3",
    "soft": "#9198a1",
    "bad": "#ff7b72",
    "answered": "#4c8ddb",
    "failed": "#e5534b",
    "wait": "#6e7681",
}

MONOSPACED = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
"""Their characters are at most 0.61 em wide."""

_DOCUMENT = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root {color-scheme: light dark; $light}
@media (prefers-color-scheme: dark) {:root {$dark}}
* {box-sizing: border-box}
body {margin: 0; background: var(--ground); color: var(--text);
  font: 14px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def document(title: str, style: str, body: str) -> str:
    """A page of HTML; its style has the colours as variables, such as `var(--text)`."""
    light, dark = (
        " ".join(f"--{name}: {colour};" for name, colour in palette.items())
        for palette in (LIGHT, DARK)
    )
    return _DOCUMENT.substitute(title=escape(title), light=light, dark=dark, style=style, body=body)
