"""Executors run trials: in worker processes on this machine, in the driver's own process, or on a Ray cluster."""

from __future__ import annotations

from mltune.execution._base import Executor, ExecutorLostError, ExecutorOptions, Limits
from mltune.execution._registry import EXECUTORS, check_executor, get_executor

__all__ = [
    "EXECUTORS",
    "Executor",
    "ExecutorLostError",
    "ExecutorOptions",
    "Limits",
    "check_executor",
    "get_executor",
]
