"""The plots of ``RESULTS.md``: each is made from one record, as SVG that is the same for the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams.update({"svg.hashsalt": "bigrad", "svg.fonttype": "none", "figure.figsize": (8.0, 3.6), "font.size": 8})

from matplotlib import pyplot as plt  # noqa: E402  # after its settings
from matplotlib.axes import Axes  # noqa: E402

Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Plot:
    """A picture: from which record, under what title, with how many panels."""

    record: str
    title: str
    panels: Callable[[Tables], Iterable[Callable[[Axes], None]]]


def lines(rows: list[dict[str, Any]], key: str, x: str, y: str) -> Callable[[Axes], None]:
    """One line for each value of ``key``."""

    def panel(axes: Axes) -> None:
        for name in dict.fromkeys(str(row[key]) for row in rows if row.get(y)):
            points = [(row[x], row[y]) for row in rows if str(row[key]) == name and row.get(y)]
            axes.loglog(*zip(*points, strict=True), marker=".", label=name)
        axes.set(xlabel=x, ylabel=y)
        axes.legend(fontsize=6)

    return panel


def cloud(rows: list[dict[str, Any]], key: str, x: str, y: str, title: str) -> Callable[[Axes], None]:
    """One named point a row."""

    def panel(axes: Axes) -> None:
        for place, row in enumerate(row for row in rows if row.get(x) and row.get(y)):
            mark = "o" if str(row[key]).startswith("bigrad") else "x"
            axes.loglog(row[x], row[y], mark, color=f"C{place % 10}", label=row[key])
        axes.set(xlabel=x, ylabel=y, title=title)
        axes.legend(fontsize=5, ncols=2)

    return panel


def error_against_time(tables: Tables) -> Iterable[Callable[[Axes], None]]:
    """A panel a size."""
    rows = tables.get("adjoint_time", [])
    for size in dict.fromkeys(row["size"] for row in rows):
        yield cloud([row for row in rows if row["size"] == size], "way", "ms", "error", f"adjoint, d = {size}")


def equilibria(tables: Tables) -> Iterable[Callable[[Axes], None]]:
    """A panel a size."""
    rows = tables.get("equilibria", [])
    for problems in dict.fromkeys(row["problems"] for row in rows):
        yield cloud([row for row in rows if row["problems"] == problems], "way", "ms", "error", problems)


def memory_against_steps(tables: Tables) -> Iterable[Callable[[Axes], None]]:
    """Growth and time."""
    rows = [row for row in tables.get("growth", []) if "MiB" in row]
    yield lines(rows, "way", "steps", "MiB")
    yield lines(rows, "way", "steps", "seconds")


def programs(tables: Tables) -> Iterable[Callable[[Axes], None]]:
    """A panel a shape."""
    rows = tables.get("times", [])
    for shape in dict.fromkeys(row["programs"] for row in rows):
        chosen = [row for row in rows if row["programs"] == shape]
        yield cloud(chosen, "way", "both ms", "worst gradient error", shape)


def scaling(tables: Tables) -> Iterable[Callable[[Axes], None]]:
    """Our time and the limit's, a panel a table."""

    def panel(title: str, rows: list[dict[str, Any]]) -> Callable[[Axes], None]:
        def draw_one(axes: Axes) -> None:
            for name in dict.fromkeys(row["work"] for row in rows):
                chosen = [row for row in rows if row["work"] == name]
                sizes = [row["size"] for row in chosen]
                axes.loglog(sizes, [row["ms"] for row in chosen], "o-", label=name)
                axes.loglog(sizes, [row["limit ms"] for row in chosen], "--", label=chosen[0]["limit"])
            axes.set(xlabel=title.replace("_", " "), ylabel="ms")
            axes.legend(fontsize=5)

        return draw_one

    for title, rows in tables.items():
        yield panel(title, rows)


def norms_against_calls(tables: Tables) -> Iterable[Callable[[Axes], None]]:
    """A panel a problem; a line a method."""

    def panel(title: str, rows: list[dict[str, Any]]) -> Callable[[Axes], None]:
        def draw_one(axes: Axes) -> None:
            for row in rows:
                if "calls" in row:
                    axes.loglog(row["calls"], row["squared norms"], label=row["method"])
            axes.set(xlabel="oracle calls", ylabel="|hyper-gradient|²", title=title)
            axes.legend(fontsize=6)

        return draw_one

    rows = tables.get("curves", [])
    for problem in dict.fromkeys(row["problem"] for row in rows if "calls" in row):
        yield panel(problem, [row for row in rows if row["problem"] == problem])


PLOTS = {
    "error_against_time": Plot("implicit_gradients", "error against time of one adjoint", error_against_time),
    "memory_against_steps": Plot("unrolled_memory", "memory and time against inner steps", memory_against_steps),
    "quadratic_programs": Plot("quadratic_programs", "error against time of both passes", programs),
    "fixed_points": Plot("fixed_points", "error against time of both passes", equilibria),
    "scaling": Plot("scaling", "time against size, beside the limit", scaling),
    "stochastic_bilevel": Plot("stochastic_bilevel", "hyper-gradient against oracle calls", norms_against_calls),
}


def draw(records: dict[str, dict[str, Any]], folder: Path) -> None:
    """Draw what there are records for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, plot in PLOTS.items():
        if plot.record not in records:
            continue
        panels = list(plot.panels(records[plot.record]["tables"]))
        columns = min(len(panels), 3)
        height = -(-len(panels) // columns)
        figure, grid = plt.subplots(height, columns, squeeze=False, figsize=(4.0 * columns, 3.4 * height))
        for axes, panel in zip(grid.flat, panels, strict=False):
            panel(axes)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
