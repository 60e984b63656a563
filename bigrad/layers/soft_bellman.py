"""The soft Bellman layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigrad.certificate import Certificate, OnFailure, check_on_failure
from bigrad.errors import InputError
from bigrad.gradients import GradientRule
from bigrad.mdp import SoftSolution, solve_soft_bellman


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

    transition: Tensor | None
    certificate: Certificate | None

    def __init__(
        self,
        transition: Tensor | None = None,
        *,
        discount: float | Tensor | None = None,
        temperature: float | Tensor | None = None,
        gradient: GradientRule | None = None,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__()
        for name, given in (("transition", transition), ("discount", discount), ("temperature", temperature)):
            if isinstance(given, torch.Tensor):
                self.register_buffer(name, given, persistent=False)
            else:
                setattr(self, name, given)
        self.gradient = gradient
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None

    def forward(
        self,
        reward: Tensor,
        *,
        transition: Tensor | None = None,
        discount: float | Tensor | None = None,
        temperature: float | Tensor | None = None,
    ) -> SoftSolution:
        """Solve for this reward ``(*batch, S, A)``."""
        given = {"transition": transition, "discount": discount, "temperature": temperature}
        filled: dict[str, Any] = {name: getattr(self, name) if it is None else it for name, it in given.items()}
        missing = [name for name, value in filled.items() if value is None]
        if missing:
            raise InputError(f"{' and '.join(missing)} not given: pass it to SoftBellman(...) or to the call")
        solution, self.certificate = solve_soft_bellman(
            reward, **filled, gradient=self.gradient, on_failure=self.on_failure
        )
        return solution

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        shape = None if self.transition is None else tuple(self.transition.shape)
        return f"transition={shape}, discount={self.discount}, temperature={self.temperature}"
