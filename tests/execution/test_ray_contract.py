"""Executor ray keeps the laws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from mltune.testing import ExecutorContract

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module", autouse=True)
def joined(join_ray: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Start the executors on a Ray that runs already."""
    with join_ray():
        yield


class TestRay(ExecutorContract):
    executor = "ray"
