"""A study's report: charts, leaderboard, picture, and the lint of its set-up."""

from __future__ import annotations

from mltune.report._lint import LISTED, lint

__all__ = ["LISTED", "lint"]
