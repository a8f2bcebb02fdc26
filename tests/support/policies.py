"""Policies for tests."""

from __future__ import annotations

from resilience.policy import Inner, Policy, Runtime


class Busy(Policy):
    """Does nothing, and is never at rest: every call takes the full path."""

    def bind(self, inner: Inner, runtime: Runtime) -> Inner:
        return inner
