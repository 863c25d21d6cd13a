"""A study's report: charts, leaderboard, history picture and study lint."""

from __future__ import annotations

from mltune.plugins import missing_packages
from mltune.report._lint import lint

__all__ = ["lint", "missing"]


def missing() -> list[str]:
    """Return a sentence about the packages that are missing to write a report, or none; lint needs none of them."""
    return missing_packages("the report", ("matplotlib", "plotly"))
