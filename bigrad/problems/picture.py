"""The drawing of this room: policies and rewards, on a grid or as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, MissingPackage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that no window belongs to."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackage("matplotlib", "plot", "problem.render") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_tables(policy: Tensor, reward: Tensor) -> None:
    """Refuse tables that are not two of one shape."""
    if policy.ndim != 2 or policy.shape != reward.shape:
        raise InputError(
            f"policy has shape {tuple(policy.shape)} and reward {tuple(reward.shape)}; wanted both (states, actions)"
        )


def draw_table(title: str, policy: Tensor, reward: Tensor) -> Figure:
    """Two heat maps, a row a state."""
    check_tables(policy, reward)
    figure = new_figure(7, 1.5 + 0.3 * min(len(policy), 20))
    for panel, name, table in zip(figure.subplots(1, 2), ("policy", "reward"), (policy, reward), strict=True):
        image = panel.imshow(table.numpy(), aspect="auto", cmap="viridis")
        figure.colorbar(image, ax=panel)
        panel.set(title=name, xlabel="action", ylabel="state")
    figure.suptitle(title)
    return figure


def draw_grid(title: str, layout: Tensor, moves: Tensor, policy: Tensor, reward: Tensor, start: Tensor) -> Figure:
    """The reward's mean under the policy as a map, and the policy as its mean move, over its entropy."""
    check_tables(policy, reward)
    figure = new_figure(11, 5)
    from matplotlib.colors import SymLogNorm  # found missing, if it is, by new_figure

    left, right = figure.subplots(1, 2)
    earned = (policy * reward).sum(-1)
    smallest = float(earned.abs().quantile(0.5))
    threshold = smallest if smallest > 0 else max(float(earned.abs().amax()), 1e-12)
    image = left.imshow(on_grid(layout, earned), cmap="viridis", norm=SymLogNorm(threshold))
    figure.colorbar(image, ax=left)
    left.set_title("reward under the policy")
    entropy = -torch.xlogy(policy, policy).sum(-1)
    image = right.imshow(on_grid(layout, entropy), cmap="YlOrBr", vmin=0, alpha=0.6)
    figure.colorbar(image, ax=right, label="entropy of the policy")
    right.set_title("policy")
    _arrows(right, layout, moves, policy)
    for panel in (left, right):
        panel.set_facecolor("0.25")
        panel.set(xticks=[], yticks=[])
        rows, columns = (layout == int(start.argmax())).nonzero(as_tuple=True)
        panel.plot(columns.tolist(), rows.tolist(), "ro", markersize=5, fillstyle="none")
    figure.suptitle(title)
    return figure


def on_grid(layout: Tensor, values: Tensor) -> list[list[float]]:
    """Values of the states, each at its cell; NaN at walls."""
    placed = torch.where(layout >= 0, values.double()[layout.clamp_min(0)], torch.nan)
    result: list[list[float]] = placed.tolist()
    return result


def _arrows(panel: Axes, layout: Tensor, moves: Tensor, policy: Tensor) -> None:
    rows, columns = (layout >= 0).nonzero(as_tuple=True)
    mean = policy[layout[rows, columns]].double() @ moves.double()
    panel.quiver(
        *(columns.tolist(), rows.tolist(), (0.8 * mean[:, 1]).tolist(), (0.8 * mean[:, 0]).tolist()),
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="mid",
        color="C0",
    )
