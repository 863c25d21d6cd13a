"""Who runs the objectives: workers of mltune's own, or the driver's process."""

from __future__ import annotations

from collections.abc import Mapping

from mltune.errors import RequestError
from mltune.execution._base import (
    THREAD_VARIABLES,
    Cost,
    Died,
    Ended,
    Executor,
    ExecutorLostError,
    Isolation,
    Message,
    ObjectiveRef,
    Pruned,
    Raised,
    Reported,
    Returned,
    Setup,
    Task,
    TimedOut,
)

__all__ = [
    "THREAD_VARIABLES",
    "Cost",
    "Died",
    "Ended",
    "Executor",
    "ExecutorLostError",
    "Isolation",
    "Message",
    "ObjectiveRef",
    "Pruned",
    "Raised",
    "Reported",
    "Returned",
    "Setup",
    "Task",
    "TimedOut",
    "executor_for",
]


def executor_for(
    n_jobs: int, *, resources: Mapping[str, float], isolation: Isolation, trial_memory: int | None = None
) -> Executor:
    """The executor of this machine; ``trial_memory`` is the most bytes that a trial's processes may hold.

    Raises:
        RequestError: It cannot give what is asked for.
    """
    from mltune.execution.inline import InlineExecutor
    from mltune.execution.local import LocalExecutor

    if resources:
        raise RequestError(f"`resources` needs an engine that places trials, but got {dict(resources)}: use engine ray")
    if isolation is Isolation.PROCESS:
        return LocalExecutor(n_jobs, trial_memory)
    if trial_memory is not None:
        raise RequestError("`trial_memory` needs a process of its own, but got `isolation: none`: drop one of them")
    if n_jobs > 1:
        raise RequestError(f"`isolation: none` runs one trial at a time, but got n_jobs={n_jobs}: set it to 1")
    return InlineExecutor()
