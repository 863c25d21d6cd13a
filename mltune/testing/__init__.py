"""For authors of engines: the laws that every engine keeps, as a pytest class, and a driver in memory.

A plugin's whole test is::

    from mltune.testing import EngineContract

    class TestMyEngine(EngineContract):
        engine = "my-engine"
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mltune.testing._contract")

from mltune.testing._contract import EngineContract  # noqa: E402
from mltune.testing._driver import MemoryDriver, Outcome  # noqa: E402
from mltune.testing._memory import MemoryRun, MemoryTracker, Script, ScriptedExecutor  # noqa: E402

__all__ = [
    "EngineContract",
    "MemoryDriver",
    "MemoryRun",
    "MemoryTracker",
    "Outcome",
    "Script",
    "ScriptedExecutor",
]
