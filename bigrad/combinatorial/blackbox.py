"""Blackbox differentiation: one more solve, at a cost moved along the gradient."""

from __future__ import annotations

from dataclasses import dataclass

from .difference import Difference
from .estimator import Estimator
from .step import Step, check_step


@dataclass(frozen=True)
class Blackbox(Estimator):
    r"""The gradient :math:`\bigl(S(w + \lambda g) - S(w)\bigr) / \lambda` of an oracle that minimises, and
    :math:`\bigl(S(w) - S(w - \lambda g)\bigr) / \lambda` of one that maximises.

    For a loss that is linear in the solution it is the exact gradient of a piecewise affine interpolation of the loss.
    A step too small changes no solution and gives a gradient of zero: the layer counts those.

    Args:
        step: :math:`\lambda`: a number in the unit of cost over gradient, so that a loss averaged over a batch wants a
            longer one; or a :class:`RelativeStep`, each problem's own, for which scales do not matter.
        two_sided: difference both ways, for a second solve in backward.

    Raises:
        InputError: the step is not positive.

    Source: Differentiation of Blackbox Combinatorial Solvers (Pogancic, Paulus, Musil, Martius, Rolinek, 2020).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Blackbox, TopK
        >>> from bigrad.layers import Combinatorial
        >>> score = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
        >>> y = Combinatorial(TopK(1), Blackbox(step=2.0))(score)
        >>> torch.autograd.grad(y @ torch.tensor([0.0, 1.0, 0.0]), score)[0]
        tensor([ 0.0000,  0.5000, -0.5000])
    """

    step: Step = 20.0
    two_sided: bool = False

    def __post_init__(self) -> None:
        check_step(self.step, "Blackbox")

    @property
    def rule(self) -> Difference:
        """The difference rule."""
        return Difference(self.step, self.two_sided)
