"""A study's report: charts, leaderboard, history picture and study lint."""

from __future__ import annotations

from mltune.report._lint import lint

__all__ = ["lint"]
