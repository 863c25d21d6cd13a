"""mltune's own executors keep the laws."""

from __future__ import annotations

import pytest

from mltune.testing import ExecutorContract


@pytest.mark.processes
class TestLocal(ExecutorContract):
    executor = "local"


class TestInline(ExecutorContract):
    executor = "inline"
