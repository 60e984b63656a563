"""The soft Bellman layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigrad.certificate import Certificate, OnFailure, check_on_failure
from bigrad.errors import InputError
from bigrad.gradients import GradientRule, WarmStart
from bigrad.mdp import PolicyIteration, SoftSolution, SparseTransition, solve_soft_bellman
from bigrad.solvers import Solver

Transition = Tensor | SparseTransition


class SoftBellman(nn.Module):
    """The soft-optimal policy of a Markov decision process, differentiable in its reward, transitions, discount and
    temperature; see :func:`bigrad.mdp.solve_soft_bellman` for formula, shapes and errors.

    What is given here is the default of every call and follows ``.to(device)``; what is given in the call receives
    gradients.

    Attributes:
        certificate: how the last eager call ended.

    Example:
        >>> import torch
        >>> from bigrad.layers import SoftBellman
        >>> stay_or_swap = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
        >>> reward = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
        >>> solution = SoftBellman(stay_or_swap, discount=0.9, temperature=0.1)(reward)
        >>> solution.policy.detach().round(decimals=2)
        tensor([[0., 1.],
                [1., 0.]])
        >>> solution.value.sum().backward()
        >>> reward.grad.shape
        torch.Size([2, 2])
    """

    certificate: Certificate | None

    def __init__(
        self,
        transition: Transition | None = None,
        *,
        discount: float | Tensor | None = None,
        temperature: float | Tensor | None = None,
        solver: Solver | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__()
        if isinstance(transition, torch.Tensor) and transition.layout == torch.sparse_csr:
            transition = SparseTransition.of(transition)
        # In parts, as torch cannot copy a sparse tensor.
        parts = (*vars(transition).values(),) if isinstance(transition, SparseTransition) else (transition,)
        for place, part in enumerate(parts):
            self.register_buffer(f"_transition_{place}", part, persistent=False)
        self._parts = len(parts)
        for name, given in (("discount", discount), ("temperature", temperature)):
            if isinstance(given, torch.Tensor):
                self.register_buffer(name, given, persistent=False)
            else:
                setattr(self, name, given)
        self.solver = PolicyIteration() if solver is None else solver
        self.gradient = gradient
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None

    @property
    def transition(self) -> Transition | None:
        """The transition of every call that gives none."""
        parts = [getattr(self, f"_transition_{place}") for place in range(self._parts)]
        return SparseTransition(*parts) if len(parts) > 1 else parts[0]

    def forward(
        self,
        reward: Tensor,
        *,
        transition: Transition | None = None,
        discount: float | Tensor | None = None,
        temperature: float | Tensor | None = None,
        init: Tensor | None = None,
        warm_start: WarmStart | None = None,
    ) -> SoftSolution:
        """Solve for this reward ``(*batch, S, A)``; ``init`` starts this one call at other values ``(*batch, S)``,
        ``warm_start`` where its last call ended."""
        given = {"transition": transition, "discount": discount, "temperature": temperature}
        filled: dict[str, Any] = {name: getattr(self, name) if it is None else it for name, it in given.items()}
        missing = [name for name, value in filled.items() if value is None]
        if missing:
            raise InputError(f"{' and '.join(missing)} not given: pass it to SoftBellman(...) or to the call")
        solution, self.certificate = solve_soft_bellman(
            reward,
            **filled,
            gradient=self.gradient,
            on_failure=self.on_failure,
            solver=self.solver,
            init=init,
            warm_start=warm_start,
        )
        return solution

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        shape = None if self.transition is None else tuple(self.transition.shape)
        return f"transition={shape}, discount={self.discount}, temperature={self.temperature}"
