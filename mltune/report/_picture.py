"""A study's history as a picture."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mltune.report.view import View
from mltune.trial import TrialState


def history_png(view: View) -> bytes:
    """Return a PNG of 900 by 450 pixels with each complete trial and the best value so far.

    It is drawn without matplotlib's global state.
    """
    complete = sorted((t for t in view.ranked if t.state is TrialState.COMPLETE), key=lambda trial: trial.number)
    numbers: list[int] = []
    values: list[float] = []
    best: list[float] = []
    for trial in complete:
        assert trial.value is not None
        numbers.append(trial.number)
        values.append(trial.value)
        best.append(trial.value if not best or view.direction.better(trial.value, best[-1]) else best[-1])
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(numbers, values, "o", color="#93c5fd", markersize=4, label="trial")
    axes.step(numbers, best, where="post", color="#2563eb", label="best so far")
    axes.set(title=view.record.name.replace("$", r"\$"), xlabel="trial", ylabel=view.metric.replace("$", r"\$"))
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
