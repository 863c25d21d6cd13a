"""A study's history as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.report.view import View


def history_png(view: View) -> bytes:
    """Return a PNG of 900 by 450 pixels with each complete trial and the best value so far.

    It is drawn without matplotlib's global state.
    """
    complete = sorted((t for t in view.ranked if t.state is TrialState.COMPLETE), key=lambda trial: trial.number)
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*_coordinates(complete), "o", color="#93c5fd", markersize=4, label="trial")
    numbers, values = _coordinates(view.goal.improvements(complete))
    last = complete[-1].number
    axes.step([*numbers, last], [*values, values[-1]], where="post", color="#2563eb", label="best so far")
    axes.set(title=view.record.name.replace("$", r"\$"), xlabel="trial", ylabel=view.goal.metric.replace("$", r"\$"))
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _coordinates(trials: Sequence[FrozenTrial]) -> tuple[list[int], list[float]]:
    return [trial.number for trial in trials], [math.nan if trial.value is None else trial.value for trial in trials]
