"""The picture of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingPackage
from .calibration import expected_calibration_error
from .result import Result
from .snapshot import write_atomically


def draw_curves(path: Path, history: Sequence[dict[str, Any]], result: Result) -> None:
    """Draw true return, labels, loss and response against environment steps, and the calibration, into a PNG file.

    Raises:
        MissingPackage: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("matplotlib", "plot", "curves.png") from error
    figure = Figure(figsize=(14, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)

    def series(name: str) -> tuple[list[float], list[float]]:
        rows = [row for row in history if row.get(name) is not None]
        return [row["step"] for row in rows], [row[name] for row in rows]

    panel = axes[0][0]
    panel.plot(*series("episode_return"), color="0.7", linewidth=1, label="training episodes")
    panel.plot([result.steps], [result.true_return], "o", color="C0", label=f"evaluation: {result.true_return:.0f}")
    for name, value, color in (("ceiling", result.ceiling_return, "C2"), ("random", result.random_return, "C3")):
        if value is not None:
            panel.axhline(value, color=color, linestyle="--", label=f"{name}: {value:.0f}")
    panel.set_title("true return (the learner never sees it)")
    panel.legend(loc="lower right")

    panel = axes[0][1]
    panel.step(*series("labels"), where="post", color="C1")
    panel.set_title("labels given")

    panel = axes[1][0]
    panel.plot(*series("loss"), "o-", markersize=3, label="after the fit")
    panel.plot(*series("fresh_loss"), "o-", markersize=3, label="fresh labels, before the fit")
    panel.plot(*series("expected_loss"), "o-", markersize=3, label="expected on the policy's segments")
    panel.set_yscale("symlog", linthresh=1e-3)
    panel.set_title("preference loss")
    panel.legend()

    panel = axes[1][1]
    for name, label in (("ratio", "as used"), ("estimated_ratio", "as estimated")):
        steps, ratios = series(name)
        if any(ratio > 0 for ratio in ratios):
            panel.semilogy(steps, ratios, "o-", markersize=3, label=label)
            panel.legend()
    panel.set_title("response term / direct term (norms)")

    panel = axes[1][2]
    for name, label in (
        ("fresh_accuracy", "accuracy on fresh labels"),
        ("true_accuracy", "accuracy on unlabelled pairs"),
        ("disagreement", "disagreement of members"),
        ("calibration_error", "calibration error"),
    ):
        panel.plot(*series(name), "o-", markersize=3, label=label)
    panel.set_ylim(0, 1.05)
    panel.set_title("reward model")
    panel.legend()

    _draw_reliability(axes[0][2], [row["reliability"] for row in history if row.get("reliability") is not None])
    for panel in (*axes[0][:2], *axes[1]):
        panel.set_xlim(0, result.steps)
    for panel in axes[1]:
        panel.set_xlabel("environment steps")
    figure.suptitle(f"{result.env}, {result.method}, {result.labels} labels, seed {result.seed}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())


def _draw_reliability(panel: Any, tables: Sequence[Sequence[Sequence[float]]]) -> None:
    """How often the right segment was preferred, against the belief that it would be, of labels not fitted yet."""
    panel.set_title("calibration")
    panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    if tables:
        table = np.sum(np.array(tables), 0)
        count, belief, label = table[table[:, 0] > 0].T
        panel.scatter(belief / count, label / count, s=10 + 200 * count / count.sum(), alpha=0.7)
        panel.set_title(f"calibration: error {expected_calibration_error(table):.2f} on {count.sum():.0f} fresh labels")
    panel.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), xlabel="belief that right is preferred", ylabel="how often it is")
