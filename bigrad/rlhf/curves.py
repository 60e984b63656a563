"""The picture of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingPackage
from .result import Result
from .snapshot import write_atomically


def draw_curves(path: Path, history: Sequence[dict[str, Any]], result: Result) -> None:
    """Draw true return, labels, loss and response against environment steps into a PNG file.

    Raises:
        MissingPackage: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("matplotlib", "plot", "curves.png") from error
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)

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
    twin = panel.twinx()
    twin.plot(*series("fresh_accuracy"), "o-", color="C0", markersize=3)
    twin.set_ylim(0, 1.05)
    twin.set_ylabel("accuracy before the fit", color="C0")

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

    for panel in axes[1]:
        panel.set_xlabel("environment steps")
    figure.suptitle(f"{result.env}, {result.method}, {result.labels} labels, seed {result.seed}")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())
