"""Import what a command is to look at: a module, by name or file, and a thing in it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["LoadingError", "load_module", "load_target"]


class LoadingError(Exception):
    """What is wrong with the name of a module or of a thing in it, for people."""


def load_target(target: str) -> Any:
    """What `module:name` stands for, or `path/to/file.py:name`; names may have dots."""
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise LoadingError(f"write module:function or path/to/file.py:function, got {target!r}")
    found: Any = load_module(place)
    at = place
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadingError(f"{at} has no {part!r}{_hint(part, found)}") from None
        except Exception as problem:
            raise LoadingError(f"{at}.{part} raised {type(problem).__name__}") from None
        at = f"{at}.{part}"
    return found


def load_module(place: str) -> ModuleType:
    """Import a module by its name, found from here as well, or by the path of its file. What it
    prints goes to the error output."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return _of_file(Path(place)) if place.endswith(".py") else _of_name(place)
    except LoadingError:
        raise
    except ModuleNotFoundError as problem:
        if problem.name is not None and f"{place}.".startswith(f"{problem.name}."):
            raise LoadingError(f"there is no module {problem.name!r}") from None
        raise LoadingError(_failed(place, problem)) from None
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # it may be a script, which exits, or a test, which is skipped
        raise LoadingError(_failed(place, problem)) from None


def _of_name(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise LoadingError(f"{name!r} is no module's name; the path of a file ends in .py")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _of_file(path: Path) -> ModuleType:
    """The module of a file, with its folder on the path, as if it were run."""
    if not path.is_file():
        raise LoadingError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _failed(place: str, problem: BaseException) -> str:
    """Where an import has failed. Not the error's text, which may hold a key."""
    frames = [(each.filename, each.lineno) for each in traceback.extract_tb(problem.__traceback__)]
    if isinstance(problem, SyntaxError):
        frames.append((problem.filename or place, problem.lineno))
    own = [each for each in frames if "importlib" not in each[0] and each[0] != __file__]
    where = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    missing = getattr(problem, "name", None) if isinstance(problem, ImportError) else None
    what = type(problem).__name__ + (f" for {missing!r}" if missing else "")
    return f"importing {place} raised {what}{where}; import it in Python to see all of it"


def _hint(name: str, thing: Any) -> str:
    near = get_close_matches(name, dir(thing), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
