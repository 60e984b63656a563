"""The perturbed Fenchel-Young loss: it learns costs from solutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import calculus
from ..errors import InputError
from .estimator import check_samples
from .noise import Noise, Normal
from .oracle import Oracle
from .oracle_certificate import OracleCertificate
from .perturbed_solve import Call, draw, perturbed_solve
from .reduction import Reduction, check_reduction, reduced
from .residual import Residual


class FenchelYoung(nn.Module):
    r"""The loss :math:`\frac1K \sum_k \langle w_k, y - S(w_k) \rangle` of a target solution ``y`` at perturbed costs
    :math:`w_k` of ``w``; the negative where the oracle maximises.

    In expectation it is the published :math:`\langle w, y \rangle - E \min_{y'} \langle w_k, y' \rangle`. It is convex
    in ``w`` and never below zero. Its gradient is :math:`y - \frac1K \sum_k S(w_k)`. Perturbed costs outside the
    oracle's domain are solved at their projection, which gives that up; the certificate has their share.

    Args:
        oracle: the solver.
        noise: how the cost is perturbed. Under :class:`LogNormal` the gradient weights each :math:`y - S(w_k)` with
            its factors.
        samples: ``K``.
        generator: where the noise comes from, torch's own generator for ``None``.
        reduction: of the losses of a batch, as in torch: ``"mean"``, ``"sum"`` or ``"none"``.

    Attributes:
        certificate: what the last eager call has asked of the oracle.

    Raises:
        InputError: the cost is none of the oracle's, or the target has another shape.
        UnsupportedError: a second derivative or forward mode is asked for.

    Source: Learning with Differentiable Perturbed Optimizers (Berthet, Blondel, Teboul, Cuturi, Vert, Bach, 2020).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import FenchelYoung, Normal, TopK
        >>> loss = FenchelYoung(TopK(1), noise=Normal(0.1), generator=torch.Generator().manual_seed(0))
        >>> score = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
        >>> loss(score, torch.tensor([1.0, 0.0, 0.0])).backward()
        >>> score.grad
        tensor([-1.,  1.,  0.])
    """

    certificate: OracleCertificate | None

    def __init__(
        self,
        oracle: Oracle,
        *,
        noise: Noise | None = Normal(),  # noqa: B008  # frozen
        samples: int = 10,
        generator: torch.Generator | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_samples("FenchelYoung", samples, noise)
        self.oracle, self.noise, self.samples, self.generator = oracle, noise, samples, generator
        self.reduction = check_reduction(reduction)
        self.certificate = None

    @calculus.eager
    def forward(self, cost: Tensor, target: Tensor) -> Tensor:
        """The loss of costs and target solutions, both ``(*batch, *event)``; the targets are constants."""
        certificate = OracleCertificate(f"FenchelYoung over {type(self.oracle).__name__}")
        drawn = draw(self.oracle, self.noise, cost, self.samples, self.generator)
        check_target("FenchelYoung", cost, target)
        call = Call(self.oracle, Residual(), certificate, self.noise)
        losses = perturbed_solve(call, cost, drawn, target.detach())
        self.certificate = None if calculus.transforming() else certificate
        return reduced(losses, self.reduction)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        return f"oracle={self.oracle}, noise={self.noise}, samples={self.samples}, reduction={self.reduction!r}"


def check_target(owner: str, cost: Tensor, target: Tensor) -> None:
    """Raise :class:`InputError` where a target does not belong to the cost."""
    if target.shape != cost.shape:
        raise InputError(f"{owner}: the target has shape {tuple(target.shape)}; wanted {tuple(cost.shape)}, the cost's")
