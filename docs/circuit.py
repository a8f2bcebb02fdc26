"""Draw the states of a circuit into docs/circuit.md, from the table that the code goes by.

    python docs/circuit.py [--check]

With --check nothing is written; exit status 1 if the drawing is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from resilience.circuit.states import TABLE, Event

PAGE = Path(__file__).parent / "circuit.md"
BEGIN = "<!-- states: drawn by `python docs/circuit.py` -->"
END = "<!-- end of states -->"
COMMANDS = (Event.OPENS, Event.CLOSES, Event.ISOLATES, Event.DISABLES)
SHARED = (Event.SHARED_OPEN, Event.SHARED_CLOSED, Event.SHARED_ISOLATED)


def drawing() -> str:
    """A Mermaid diagram of what happens by itself, and a table of everything."""
    states = list(dict.fromkeys(state for state, _ in TABLE))
    events = list(dict.fromkeys(event for _, event in TABLE))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {_id(states[0])}"]
    lines += [f'    state "{state}" as {_id(state)}' for state in states if _id(state) != state]
    lines += [
        f"    {_id(old)} --> {_id(new)}: {event}"
        for (old, event), new in TABLE.items()
        if event not in COMMANDS + SHARED
    ]
    lines += [f"    {_id(state)}: {_commands(state)}" for state in states if _commands(state)]
    lines += ["```", "", f"| | {' | '.join(states)} |", "|---" * (len(states) + 1) + "|"]
    for event in events:
        cells = (TABLE.get((state, event), "") for state in states)
        lines.append(f"| {event} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _id(state: str) -> str:
    return state.replace("-", "_")


def _commands(state: str) -> str:
    """The commands that lead to a state from any other."""
    return ", ".join(e for e in COMMANDS if all(TABLE[s, e] == state for s, _ in TABLE))


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    new = f"{text[:begin]}\n{drawing()}\n{text[end:]}"
    if new == text:
        return 0
    if "--check" in sys.argv:
        sys.stderr.write("docs/circuit.md is out of date: run python docs/circuit.py\n")
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
