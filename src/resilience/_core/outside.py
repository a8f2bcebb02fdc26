"""What happens outside any call: manual commands, and threads that nobody waits for."""

from __future__ import annotations

from resilience._runtimes import workers
from resilience._runtimes.loops import loop_runs_here, runtime_for

from .call import Call
from .context import get_ambient
from .guard import drive
from .runtime import Runtime

__all__ = ["NO_CALL", "Job", "drive", "loop_runs_here", "start_job", "sync_runtime"]

Job = workers.Job
start_job = workers.start

NO_CALL = Call()
"""For what a runtime does outside any call."""
for _slot in Call.__slots__:
    setattr(NO_CALL, _slot, None)


def sync_runtime() -> Runtime:
    """The runtime of sync calls in the world around the caller."""
    return runtime_for(get_ambient(), asynchronous=False)
