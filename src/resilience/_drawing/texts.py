"""Texts from elsewhere (models, codes, classes), made fit to be drawn; and how wide they are."""

from __future__ import annotations

from unicodedata import category, east_asian_width

__all__ = ["cells", "clean", "escape", "fits_cells", "shorten"]

_DOTS = "..."


def clean(text: str) -> str:
    """On one line, without control characters, marks of direction, and what cannot be encoded."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def cells(text: str) -> int:
    """How many columns of a terminal or of a monospaced font it takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if category(character) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def fits_cells(text: str) -> bool:
    """Whether it surely takes no more room than that. Letters of other scripts may come from a font
    that is not monospaced; those of two cells are never wider than that."""
    return all(each.isascii() or _cells(each) == 2 for each in text)


def shorten(text: str, most: int) -> str:
    """At most so many cells; what is in the middle gives way, as models differ at their ends."""
    if cells(text) <= most:
        return text
    room = most - len(_DOTS)
    head = _fitting(text, room - room // 2)
    tail = _fitting(text[::-1], room - cells(head))[::-1]
    return f"{head}{_DOTS}{tail}"


def _fitting(text: str, most: int) -> str:
    """The beginning of a text that is longer than that."""
    end = 0
    while (most := most - _cells(text[end])) >= 0:
        end += 1
    return text[:end]


def escape(text: str) -> str:
    """For XML and HTML; in ASCII, so that it does not matter how the file is written."""
    for mark, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot")):
        text = text.replace(mark, f"&{name};")
    return text.encode("ascii", "xmlcharrefreplace").decode()
