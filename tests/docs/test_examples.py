"""The examples of the README and of the pages in docs/ run, and print what they say they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest

from resilience import policies
from resilience.testing.gateway import Gateway, Ok

sys.path.append(str(Path(__file__).parents[2] / "docs"))

from check_types import FILES, PAGES, ROOT, examples  # what is run is what it checks

pytestmark = [pytest.mark.real, pytest.mark.steady]

INCLUDED = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")

EXAMPLES = [pytest.param(code, printed, id=name) for name, code, printed in examples()]
INCLUSIONS = [
    pytest.param(*inclusion, id=Path(inclusion[0]).stem)
    for page in PAGES
    for inclusion in INCLUDED.findall(page.read_text("utf-8"))
]
# What the `resilience` logger says without any set-up would be between the warnings.
QUIETLY = """import logging, sys
logging.getLogger("resilience").addHandler(logging.NullHandler())
exec(compile(sys.argv.pop(), "<example>", "exec"))
"""
# Tests in an example are run, as pytest would.
RUN_TESTS = """
for _name in [name for name in globals() if name.startswith("test_")]:
    globals()[_name]()
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """What a client that takes its address from the environment meets: a 503 first."""
    with Gateway({"*": ["service_unavailable", Ok("Hello!")]}) as gateway:
        yield gateway


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_example(code: str, printed: str, gateway: Gateway) -> None:
    """Pasted into a file of its own beside those of docs/examples, with warnings as errors."""
    gateway.reset()
    path = os.pathsep.join(filter(None, [str(FILES), os.environ.get("PYTHONPATH")]))
    service = {"OPENAI_BASE_URL": gateway.base_url, "OPENAI_API_KEY": "any"}
    # Without coverage: its work at the end of Python finds sockets that nobody would look for.
    here = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIETLY, code + RUN_TESTS],
        capture_output=True,
        text=True,
        timeout=60,
        env={**here, **service, "PYTHONPATH": path},
    )
    assert done.stderr == ""
    assert done.stdout == printed


@pytest.mark.parametrize(("file", "code"), INCLUSIONS)
def test_a_page_shows_the_file_as_it_is(file: str, code: str) -> None:
    """A block that is marked as a file's is that file."""
    assert code == (ROOT / file).read_text("utf-8")


def test_every_file_is_shown() -> None:
    """No example in docs/examples that no page has."""
    shown = [file for page in PAGES for file, _ in INCLUDED.findall(page.read_text("utf-8"))]
    assert sorted(shown) == sorted(str(file.relative_to(ROOT)) for file in FILES.glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to another page of the repository has a file at its end."""
    links = [target for target, _ in LINK.findall(page.read_text("utf-8"))]
    missing = [
        target for target in links if ":" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def test_the_readme_names_every_policy_and_every_extra() -> None:
    first_cells = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text("utf-8"), re.M))
    made = {name for name in policies.__all__ if hasattr(getattr(policies, name), "bind")}
    extras = set(metadata("resilience-policies").get_all("Provides-Extra") or ())
    assert first_cells == made | extras
