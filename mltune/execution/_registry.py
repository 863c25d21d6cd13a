"""The registry of executors, and the check that an executor supports a study's options."""

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
    """Import and return the executor class of that name; raise as :meth:`mltune.plugins.Registry.get` does."""
    return EXECUTORS.get(name)


def check_executor(name: str, executor: type[Executor], options: ExecutorOptions) -> list[str]:
    """Return what the executor does not support of a study's options, one sentence each.

    Args:
        name: The executor's name in the sentences.
        executor: The executor's class.
        options: The study's options.
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
