"""The argmin layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optree
from torch import Tensor, nn

from bigrad.certificate import Certificate, OnFailure, check_on_failure
from bigrad.gradients import GradientRule, Implicit
from bigrad.solvers import LBFGS, Reading, Solver
from bigrad.tree import tensors_of


class ArgMin(nn.Module):
    r"""The minimiser :math:`y^*(x) = \arg\min_y f(y, x)` as a layer; see :func:`bigrad.argmin` for the arguments.

    Gradients go to the inputs, to the parameters of an objective that is an ``nn.Module``, and in eager mode to tensors
    that the objective captures.

    Attributes:
        certificate: how the last eager call ended.

    Example:
        >>> import torch
        >>> from bigrad.layers import ArgMin
        >>> layer = ArgMin(lambda w, X, y: ((X @ w - y) ** 2).sum() + (w**2).sum(), torch.zeros(2))
        >>> X = torch.eye(2, requires_grad=True)
        >>> layer(X, torch.tensor([2.0, 4.0])).detach()
        tensor([1.0000, 2.0000])
    """

    certificate: Certificate | None

    def __init__(
        self,
        objective: Callable[..., Tensor],
        init: Any,
        *,
        solver: Solver | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__()
        self.objective = objective
        self.solver = LBFGS() if solver is None else solver
        self.gradient = Implicit() if gradient is None else gradient
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None
        self._probed = False
        self._init_function = init if callable(init) else None
        leaves = [] if callable(init) else tensors_of(init, "init")
        tree: Any = () if callable(init) else init
        self._init_spec = optree.tree_structure(tree)
        self._init_count = len(leaves)
        for place, leaf in enumerate(leaves):
            # Buffers follow .to(device); where the search starts is no learnt state, so they are not saved.
            self.register_buffer(f"_init_{place}", leaf.detach(), persistent=False)

    def forward(self, *inputs: Any, init: Any = None) -> Any:
        """Solve for these inputs; ``init`` starts this one call elsewhere."""
        reading = Reading(self.objective, self._start() if init is None else init, inputs, probe=not self._probed)
        result, self.certificate = reading.solve(self.solver, self.gradient, self.on_failure)
        self._probed = not reading.probe
        return result

    def _start(self) -> Any:
        if self._init_function is not None:
            return self._init_function
        leaves = [self.get_buffer(f"_init_{place}") for place in range(self._init_count)]
        return optree.tree_unflatten(self._init_spec, leaves)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        name = (
            "" if isinstance(self.objective, nn.Module) else f"{getattr(self.objective, '__name__', self.objective)}, "
        )
        return f"{name}solver={self.solver}, gradient={self.gradient}, on_failure={self.on_failure!r}"
