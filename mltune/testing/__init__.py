"""Test tools for authors of plugins: the contracts of engines and executors as pytest classes, and test doubles.

:class:`MemoryTracker`, :class:`ScriptedExecutor` and :class:`MemoryDriver` replace the real ones, in memory.

A complete test of a plugin::

    from mltune.testing import EngineContract

    class TestMyEngine(EngineContract):
        engine = "my-engine"
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mltune.testing._engine_suite", "mltune.testing._engines", "mltune.testing._executors")

from mltune.testing._driver import MemoryDriver, Outcome  # noqa: E402
from mltune.testing._engines import EngineContract  # noqa: E402
from mltune.testing._executors import ExecutorContract  # noqa: E402
from mltune.testing._memory import MemoryRun, MemoryTracker, Script, ScriptedExecutor  # noqa: E402

__all__ = [
    "EngineContract",
    "ExecutorContract",
    "MemoryDriver",
    "MemoryRun",
    "MemoryTracker",
    "Outcome",
    "Script",
    "ScriptedExecutor",
]
