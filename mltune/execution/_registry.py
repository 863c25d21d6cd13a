"""Executors by name, and whether one can do what a study asks for."""

from __future__ import annotations

from mltune.execution._base import Executor, ExecutorOptions
from mltune.plugins import Registry

EXECUTORS: Registry[Executor] = Registry(
    "executor",
    Executor,  # type: ignore[type-abstract]
    {
        "inline": "mltune.execution.inline:InlineExecutor",
        "local": "mltune.execution.local:LocalExecutor",
        "ray": "mltune.execution.ray.executor:RayExecutor",
    },
)


def get_executor(name: str) -> type[Executor]:
    """The executor of that name, imported; errors as of :meth:`mltune.plugins.Registry.get`."""
    return EXECUTORS.get(name)


def check_executor(name: str, executor: type[Executor], options: ExecutorOptions) -> list[str]:
    """All that the executor cannot do of what a study asks for, one sentence each.

    Args:
        name: What the user calls the executor.
        executor: Its class.
        options: What the study asks for.
    """
    limits, errors = executor.limits, []
    if limits.max_jobs is not None and options.n_jobs > limits.max_jobs:
        errors.append(
            f"executor {name} runs {limits.max_jobs} trial at a time, but got n_jobs={options.n_jobs}: "
            f"set it to {limits.max_jobs}, or use executor local"
        )
    if options.resources and not limits.places:
        errors.append(
            f"`resources` needs an executor that places trials, but executor {name} does not, and got "
            f"{dict(options.resources)}: use executor ray, or drop it"
        )
    if not limits.ends_trials:
        errors += [
            f"`{key}` needs an executor that can end a trial, but executor {name} cannot: drop one of them"
            for key in ("trial_timeout", "trial_memory")
            if getattr(options, key) is not None
        ]
    return errors + executor.errors(options)
