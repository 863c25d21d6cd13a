"""The report as a single HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import plotly.io
from plotly.offline import get_plotlyjs

from mltune.report._leaderboard import leaderboard

if TYPE_CHECKING:
    from mltune.report._charts import Chart
    from mltune.report.view import View

_ROWS = 100
_STYLE = """
:root { color-scheme: light; font: 15px/1.5 system-ui, sans-serif; color: #111827; background: #f3f4f6; }
body { margin: 0 auto; max-width: 1200px; padding: 24px; }
header, section { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; }
header, section { margin-bottom: 16px; padding: 16px 20px; }
h1 { font-size: 22px; margin: 0 0 8px; } h2 { font-size: 17px; margin: 0; } p { margin: 4px 0; }
.caption { color: #6b7280; } .warnings { background: #fffbeb; border-color: #f59e0b; }
ul { margin: 4px 0; padding-left: 20px; }
.chart { min-height: 260px; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #e5e7eb; padding: 4px 10px; text-align: left; white-space: nowrap; }
tr:first-child td { font-weight: 600; }
"""
_SCRIPT = """
const draw = (entries, watcher) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
  watcher.unobserve(entry.target);
  const figure = JSON.parse(document.getElementById(entry.target.dataset.figure).textContent);
  Plotly.newPlot(entry.target, figure.data, figure.layout, {responsive: true, displaylogo: false});
});
const watcher = new IntersectionObserver(draw, {rootMargin: "600px"});
document.querySelectorAll(".chart").forEach((chart) => watcher.observe(chart));
"""
_LAYOUT = {
    "template": "plotly_white",
    "title": {"text": ""},
    "margin": {"l": 70, "r": 30, "t": 40, "b": 50},
    "font": {"family": "system-ui, sans-serif", "size": 12},
}


def page(view: View, charts: Sequence[Chart], warnings: Sequence[str], facts: Sequence[str]) -> str:
    """Return the page as HTML; the browser draws each chart when it is scrolled near the window.

    Args:
        view: The study.
        charts: The charts, in the order of the page.
        warnings: The warnings of :func:`mltune.report.lint`.
        facts: Plain sentences for the header.
    """
    name = escape(view.record.name)
    sections = [_section(i, chart) for i, chart in enumerate(charts)]
    return "\n".join(
        [
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{_STYLE}</style></head><body>",
            f"<header><h1>{name}</h1>{''.join(f'<p>{escape(fact)}</p>' for fact in facts)}</header>",
            _warnings(warnings),
            *sections,
            _table(view),
            f"<script>{get_plotlyjs()}</script><script>{_SCRIPT}</script></body></html>",
        ]
    )


def _section(i: int, chart: Chart) -> str:
    head = f'<section><h2>{escape(chart.title)}</h2><p class="caption">{escape(chart.caption)}</p>'
    if chart.figure is None:
        return f"{head}</section>"
    chart.figure.update_layout(_LAYOUT)
    figure, height = plotly.io.to_json(chart.figure, engine="json"), chart.figure.layout.height or 450
    return (
        f'{head}<script type="application/json" id="figure-{i}">{figure}</script>'
        f'<div class="chart scroll" data-figure="figure-{i}" style="height:{height}px"></div></section>'
    )


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<section class="warnings"><h2>Worth a look</h2><ul>{items}</ul></section>' if items else ""


def _table(view: View) -> str:
    board = leaderboard(view)
    shown = board.head(_ROWS).dropna(axis="columns", how="all")
    rows = [
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in shown.itertuples(index=False)
    ]
    head = "".join(f"<th>{escape(str(column))}</th>" for column in shown.columns)
    more = f" The first {_ROWS} of {len(board):,}; leaderboard.csv has all." if len(board) > _ROWS else ""
    return (
        f'<section><h2>Leaderboard</h2><p class="caption">The best first.{more}</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
