"""What `Pipeline.explain()` gives: a pipeline in plain words, with figures that hold."""

from __future__ import annotations

from .explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
