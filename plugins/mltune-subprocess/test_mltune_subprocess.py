"""The executor keeps every law of mltune's contract; a gap would be declared here, with its reason."""

from __future__ import annotations

import pytest
from mltune_subprocess import SubprocessExecutor

from mltune.testing import ExecutorContract


@pytest.mark.processes
class TestSubprocess(ExecutorContract):
    executor = "subprocess"
    executor_class = SubprocessExecutor
