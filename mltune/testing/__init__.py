"""For authors of plugins: the laws that every engine and every executor keeps, as pytest classes; and stand-ins.

:class:`MemoryTracker`, :class:`ScriptedExecutor` and :class:`MemoryDriver` take the places of the real ones, in memory.

A plugin's whole test is::

    from mltune.testing import EngineContract

    class TestMyEngine(EngineContract):
        engine = "my-engine"
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mltune.testing._engines", "mltune.testing._executors")

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
