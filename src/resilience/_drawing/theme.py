"""Colours and fonts of pictures and pages, for light and dark."""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "MONOSPACED", "SANS"]

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

SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
MONOSPACED = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
"""Their characters are at most 0.61 em wide."""
