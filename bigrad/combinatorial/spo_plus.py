"""The SPO+ loss: a convex bound on the regret of a predicted cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import calculus
from .fenchel_young import check_target
from .noise import Noise
from .oracle import Oracle
from .oracle_certificate import OracleCertificate
from .pass_through import PassThrough
from .perturbed_solve import Call, perturbed_solve
from .reduction import Reduction, check_reduction, reduced
from .residual import Residual


class SPOPlus(nn.Module):
    r"""The loss :math:`\langle 2 \hat c - c, y^*(c) - S(2 \hat c - c) \rangle` of a predicted cost :math:`\hat c` and
    the true one ``c``; the negative where the oracle maximises.

    It is convex in :math:`\hat c`, never below the regret :math:`\langle c, y^*(\hat c) - y^*(c) \rangle`, and zero for
    a cost that is right. Its gradient is :math:`2 (y^*(c) - S(2 \hat c - c))`. Where :math:`2 \hat c - c` is outside
    the oracle's domain it is solved at its projection, and the certificate has the share; the loss is then no bound.

    Args:
        oracle: the solver.
        reduction: of the losses of a batch, as in torch: ``"mean"``, ``"sum"`` or ``"none"``.

    Attributes:
        certificate: what the last eager call has asked of the oracle.

    Raises:
        InputError: a cost is none of the oracle's, or the shapes differ.
        UnsupportedError: a second derivative or forward mode is asked for.

    Source: Smart "Predict, then Optimize" (Elmachtoub, Grigas, 2022).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import SPOPlus, TopK
        >>> score, truth = torch.tensor([1.0, 3.0, 2.0], requires_grad=True), torch.tensor([2.0, 1.0, 0.0])
        >>> loss = SPOPlus(TopK(1))(score, truth)
        >>> loss
        tensor(5., grad_fn=<MeanBackward0>)
        >>> torch.autograd.grad(loss, score)[0]
        tensor([-2.,  2.,  0.])
    """

    certificate: OracleCertificate | None

    def __init__(self, oracle: Oracle, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.oracle, self.reduction = oracle, check_reduction(reduction)
        self.certificate = None

    @calculus.eager
    def forward(self, cost: Tensor, true_cost: Tensor, target: Tensor | None = None) -> Tensor:
        """The loss of predicted and true costs, both ``(*batch, *event)``.

        Args:
            cost: the prediction; gradients go there.
            true_cost: the truth, a constant.
            target: its solution, if known; else it is solved for.
        """
        certificate = OracleCertificate(f"SPOPlus over {type(self.oracle).__name__}")
        check_target("SPOPlus", cost, true_cost)
        true_cost = true_cost.detach()
        if target is None:
            target = perturbed_solve(Call(self.oracle, PassThrough(), certificate), true_cost, None)
        elif not calculus.in_transform(true_cost):
            self.oracle.validate(true_cost)
        check_target("SPOPlus", cost, target)
        call = Call(self.oracle, Residual(), certificate, _Reflection())
        losses = perturbed_solve(call, cost, true_cost.unsqueeze(0), target.detach())
        self.certificate = None if calculus.transforming() else certificate
        return reduced(losses, self.reduction)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        return f"oracle={self.oracle}, reduction={self.reduction!r}"


@dataclass(frozen=True)
class _Reflection(Noise):
    """No noise at all: the predicted cost as far again beyond the true one, which takes the place of random numbers."""

    def standard(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        raise NotImplementedError

    def perturb(self, cost: Tensor, drawn: Tensor, sign: float) -> Tensor:
        return 2 * cost - drawn

    def slope(self, drawn: Tensor) -> float:
        return 2.0
