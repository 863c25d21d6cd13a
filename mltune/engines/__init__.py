"""Engines propose trials and decide which to stop; this package never imports mlflow."""

from __future__ import annotations

from mltune.engines._base import AskTellEngine, Engine
from mltune.engines._points import ENUMERATED, count_points
from mltune.engines._registry import EngineInfo, check_search, create_engine, get_engine, list_engines
from mltune.search import FINITE, AlgorithmInfo, Observation, Option, SearchProblem, Spec, ask_seed, trial_seed

__all__ = [
    "ENUMERATED",
    "FINITE",
    "AlgorithmInfo",
    "AskTellEngine",
    "Engine",
    "EngineInfo",
    "Method",
    "Observation",
    "Option",
    "Search",
    "SearchProblem",
    "Spec",
    "ask_seed",
    "check_search",
    "count_points",
    "create_engine",
    "get_engine",
    "list_engines",
    "trial_seed",
]

Method = AlgorithmInfo
"""The name of :class:`AlgorithmInfo` in the first release."""

Search = SearchProblem
"""The name of :class:`SearchProblem` in the first release."""
