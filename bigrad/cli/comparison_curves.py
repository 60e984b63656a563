"""The pictures of a comparison."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..rlhf import comparison

CURVES, BUDGETS = "curves.png", "budgets.png"
_COLOURS = [f"C{number}" for number in range(10)]


def draw_comparison(out: Path, outcomes: comparison.Outcomes) -> None:
    """Draw learning curves, a row a task; and, where there are several label budgets, what each has led to.

    Raises:
        RunError: a file cannot be written.
    """
    tasks = [task for task in outcomes.tasks if any(outcomes.of(arm, task) for arm in outcomes.arms)]
    if not tasks:
        return
    figure, panels = _figure(len(tasks), 2)
    for (left, right), task in zip(panels, tasks, strict=True):
        for arm, colour in _coloured(outcomes):
            rows = outcomes.of(arm, task)
            if rows:
                _draw(left, *comparison.against_steps(rows), colour, f"{arm} ({len(rows)} seeds)")
                _draw(right, *comparison.against_labels(rows), colour, None)
        _draw_scale(left, outcomes, task)
        left.set(title=task.title(), xlabel="environment steps", ylabel="true return in training")
        left.legend(fontsize="small")
        right.set(title="the same against labels", xlabel="labels given so far")
    _save(out / CURVES, figure)
    places = list(dict.fromkeys((task.env, task.teacher) for task in tasks))
    if len({task.labels for task in tasks}) > 1:
        figure, panels = _figure(len(places), 2)
        for (left, right), (env, teacher) in zip(panels, places, strict=True):
            own = [task for task in tasks if (task.env, task.teacher) == (env, teacher)]
            for arm, colour in _coloured(outcomes):
                _draw_budgets(left, outcomes, arm, own, "true_return", colour)
                _draw_budgets(right, outcomes, arm, own, "preference_accuracy", colour)
            _draw_scale(left, outcomes, own[0])
            left.set(title=f"{env}, {teacher} teacher", xlabel="labels", ylabel="true return", xscale="log")
            right.set(title="of the reward model", xlabel="labels", ylabel="preference accuracy", xscale="log")
            left.legend(fontsize="small")
            for panel in (left, right):
                panel.set_xticks(ticks := [task.labels for task in own], map(str, ticks))
                panel.minorticks_off()
        _save(out / BUDGETS, figure)


def _figure(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _coloured(outcomes: comparison.Outcomes) -> list[tuple[str, str]]:
    return [(arm, _COLOURS[place % len(_COLOURS)]) for place, arm in enumerate(outcomes.arms)]


def _draw(panel: Any, grid: Any, curves: Any, colour: str, label: str | None) -> None:
    """The mean of the curves, with a band where there are enough of them and each one where there are not."""
    if len(grid) == 0:
        return
    mean, low, high = comparison.band(curves)
    panel.plot(grid, mean, color=colour, label=label)
    if len(curves) >= comparison.FEWEST:
        panel.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0)
    else:
        panel.plot(grid, curves.T, color=colour, alpha=0.4, linewidth=0.7)


def _draw_budgets(
    panel: Any, outcomes: comparison.Outcomes, arm: str, tasks: list[comparison.Task], name: str, colour: str
) -> None:
    """Interquartile means with their intervals against the label budget."""
    found = []
    for task in tasks:
        scores = [value for row in outcomes.of(arm, task) if (value := row.number(name)) is not None]
        if scores:
            found.append((task.labels, comparison.aggregate([scores])))  # type: ignore[list-item]  # any sequence serves
    if not found:
        return
    budgets, estimates = zip(*found, strict=True)
    panel.plot(budgets, [estimate.value for estimate in estimates], "o-", color=colour, markersize=4, label=arm)
    sure = [(budget, estimate) for budget, estimate in found if estimate.low is not None]
    for budget, estimate in sure:
        panel.plot([budget, budget], [estimate.low, estimate.high], color=colour, linewidth=1)


def _draw_scale(panel: Any, outcomes: comparison.Outcomes, task: comparison.Task) -> None:
    scale = outcomes.scale(task.env)
    if scale is not None:
        panel.axhline(scale.ceiling_return, color="0.5", linestyle="--", linewidth=1)
        panel.axhline(scale.random_return, color="0.5", linestyle=":", linewidth=1)


def _save(path: Path, figure: Figure) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    comparison.write_atomically(path, picture.getvalue())
