"""The charts of a report as plotly figures; Optuna draws the parallel coordinates and the slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization

from mltune._util.scoped import quiet
from mltune.errors import first_line
from mltune.report._importance import as_optuna
from mltune.report._timeline import lanes
from mltune.text import format_params
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.report.view import View

COLOURS = {
    TrialState.COMPLETE: "#2563eb",
    TrialState.PRUNED: "#f59e0b",
    TrialState.FAILED: "#dc2626",
    TrialState.INTERRUPTED: "#7c3aed",
    TrialState.RUNNING: "#16a34a",
}
_MOST = 2000  # trials per chart, chosen by `thinned`
_MOST_VALUES = 20_000  # parameter values per chart: more make the page larger than 10 MB
_MOST_POINTS = 50_000  # approximate number of points in all learning curves
_FEW_CURVES = 20  # if there are more, they are drawn faintly


@dataclass(frozen=True)
class Chart:
    """A figure with its title and caption.

    Attributes:
        figure: None if it could not be drawn; the caption then gives the error.
    """

    title: str
    caption: str
    figure: go.Figure | None


def charts(view: View) -> list[Chart]:
    """Return the charts that can be drawn from the study's trials so far."""
    shown = thinned(view.ranked, min(_MOST, _MOST_VALUES // len(view.space)))
    study = as_optuna(shown, view.space, view.goal)
    complete = [trial for trial in view.trials if trial.state is TrialState.COMPLETE]
    some = "" if len(shown) == len(view.trials) else f" {len(shown):,} of {len(view.trials):,} trials are drawn."
    makers: list[Callable[[], Chart | None]] = [lambda: _failures(view), lambda: _timeline(view)]
    if any(trial.reports for trial in view.trials):
        makers.insert(0, lambda: _curves(view))
    if complete:
        makers[:0] = [
            lambda: _history(view, shown, complete, some),
            lambda: _importances(view),
            lambda: _parallel(study, view, complete, some),
            lambda: _slices(study, view, some),
        ]
    with quiet("optuna"):
        return [chart for make in makers if (chart := _drawn(make)) is not None]


def _drawn(make: Callable[[], Chart | None]) -> Chart | None:
    """Draw one chart; if that fails, for example at values of 1e308, return a chart with the error instead."""
    try:
        return make()
    except Exception as error:
        return Chart("A chart is missing", f"It could not be drawn: {type(error).__name__}: {first_line(error)}", None)


def thinned(ranked: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """Choose at most ``most`` trials and return them by number.

    A quarter of them are the best ones; the others are at even distances in the ranking.

    Args:
        ranked: The trials, the best first.
        most: The number of trials that a chart can show.
    """
    if len(ranked) <= most:
        return sorted(ranked, key=lambda trial: trial.number)
    best, others = list(ranked[: 1 + most // 4]), ranked[1 + most // 4 :]
    places = (i * len(others) // (most - len(best)) for i in range(most - len(best)))
    return sorted([*best, *(others[place] for place in places)], key=lambda trial: trial.number)


def _history(view: View, shown: Sequence[FrozenTrial], complete: Sequence[FrozenTrial], some: str) -> Chart:
    dots = [trial for trial in shown if trial.state is TrialState.COMPLETE]
    records = view.goal.improvements(complete)
    last = complete[-1].number
    figure = go.Figure(layout={"xaxis_title": "trial", "yaxis_title": view.goal.metric})
    figure.add_scatter(
        x=[trial.number for trial in dots],
        y=[trial.value for trial in dots],
        text=[format_params(trial).replace(", ", "<br>") for trial in dots],
        hovertemplate="trial %{x}: %{y}<br>%{text}<extra></extra>",
        mode="markers",
        name="trial",
        marker_color="#93c5fd",
    )
    figure.add_scatter(
        x=[*(trial.number for trial in records), last],
        y=[*(trial.value for trial in records), records[-1].value],
        mode="lines",
        line={"shape": "hv", "color": "#2563eb"},
        name="best so far",
    )
    return Chart("Optimisation history", f"Each complete trial, and the best value so far.{some}", figure)


def _importances(view: View) -> Chart | None:
    importances = view.importances
    if not importances:
        return None
    names = list(reversed(importances))
    bar = go.Bar(x=[importances[name] for name in names], y=names, orientation="h", marker_color="#2563eb")
    figure = go.Figure(bar, {"xaxis_title": "importance", "height": 140 + 28 * len(names)})
    return Chart(
        "Parameter importances",
        "How much each parameter decides whether a trial is among the best (PED-ANOVA, from Optuna).",
        figure,
    )


def _parallel(study: optuna.Study, view: View, complete: Sequence[FrozenTrial], some: str) -> Chart | None:
    names = [name for name in view.space if all(name in trial.params for trial in complete)]
    if not names:
        return None
    figure = visualization.plot_parallel_coordinate(study, params=names, target_name=view.goal.metric)
    left_out = len(view.space) - len(names)
    missing = f" {left_out} conditional parameters have no axis." if left_out else ""
    return Chart("Parallel coordinates", f"Each complete trial is a line; drag along an axis.{missing}{some}", figure)


def _slices(study: optuna.Study, view: View, some: str) -> Chart:
    seen = {name for trial in study.trials if trial.state.name == "COMPLETE" for name in trial.params}
    names = [name for name in view.space if name in seen]
    figure = visualization.plot_slice(study, params=names, target_name=view.goal.metric)
    return Chart("Slices", f"The metric over each parameter; darker trials came later.{some}", figure)


def _curves(view: View) -> Chart:
    """Draw one trace per state; with one trace per trial, the browser would need minutes."""
    reporting = [trial for trial in view.ranked if trial.reports]
    points = sum(len(trial.reports) for trial in reporting)
    shown = thinned(reporting, max(1, len(reporting) * _MOST_POINTS // max(points, _MOST_POINTS)))
    figure = go.Figure(layout={"xaxis_title": "step", "yaxis_title": view.goal.metric, "hovermode": "closest"})
    for state in COLOURS:
        curves = [trial for trial in shown if trial.state is state]
        if curves:
            figure.add_trace(_trace(curves, str(state), COLOURS[state], faint=len(shown) > _FEW_CURVES))
    best = reporting[0]
    if best.state is TrialState.COMPLETE:
        figure.add_trace(_trace([best], f"best (trial {best.number})", "#111827", width=3))
    some = "" if len(shown) == len(reporting) else f" {len(shown):,} of {len(reporting):,} are drawn."
    caption = f"What trials reported; where a pruned curve ends it was stopped.{some}"
    return Chart("Intermediate values", caption, figure)


def _trace(trials: Sequence[FrozenTrial], name: str, colour: str, *, faint: bool = False, width: int = 1) -> go.Scatter:
    x = np.array([step for trial in trials for step in (*trial.reports, math.nan)])
    y = np.array([value for trial in trials for value in (*trial.reports.values(), math.nan)])
    y[~np.isfinite(y)] = math.nan
    text = [f"trial {trial.number}" for trial in trials for _ in range(len(trial.reports) + 1)]
    line = {"color": colour, "width": width}
    mode = "lines" if max(len(trial.reports) for trial in trials) > 1 else "markers"
    return go.Scatter(x=x, y=y, text=text, name=name, mode=mode, line=line, opacity=0.45 if faint else 1.0)


def _timeline(view: View) -> Chart | None:
    bars = lanes(view)
    if not bars:
        return None
    begin = min(bar.start for bar in bars)
    figure = go.Figure(layout={"barmode": "overlay", "xaxis_title": "seconds", "bargap": 0.15})
    for state in COLOURS:
        in_state = [bar for bar in bars if bar.trial.state is state]
        if in_state:
            figure.add_bar(
                base=[bar.start - begin for bar in in_state],
                x=[bar.seconds for bar in in_state],
                y=[bar.lane for bar in in_state],
                text=[f"trial {bar.trial.number}, attempt {bar.trial.attempt}" for bar in in_state],
                textposition="none",
                hovertemplate="%{text}<br>%{base:.1f} s to %{x:.1f} s",  # x is the end of a bar that has a base
                orientation="h",
                name=str(state),
                marker_color=COLOURS[state],
            )
    workers = 1 + max(bar.lane for bar in bars)
    figure.update_layout(height=160 + 34 * min(workers, 30), showlegend=True)
    figure.update_yaxes(title="worker", dtick=1, autorange="reversed")
    return Chart("Timeline of workers", "What each worker did; gaps are time without a trial.", figure)


def _failures(view: View) -> Chart | None:
    reasons = view.failures
    if not reasons:
        return None
    bar = go.Bar(x=list(reasons), y=list(reasons.values()), marker_color=COLOURS[TrialState.FAILED])
    figure = go.Figure(bar, {"yaxis_title": "attempts", "height": 300})
    return Chart("Failures by reason", "Every attempt that failed, those that were tried again included.", figure)
