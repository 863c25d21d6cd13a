"""A study's page in MLflow: its description, and ``report/`` with charts, leaderboard and picture."""

from __future__ import annotations

from mltune.report._lint import LISTED, lint
from mltune.report.description import describe
from mltune.report.refresh import Refresher, wanted

__all__ = ["LISTED", "Refresher", "describe", "lint", "wanted"]
