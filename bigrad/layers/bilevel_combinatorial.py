"""The layer of two combinatorial levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigrad.calculus import eager, precise, transforming
from bigrad.certificate import OnFailure, check_on_failure
from bigrad.combinatorial import (
    BilevelCertificate,
    BilevelEstimator,
    BilevelOracle,
    Estimator,
    FixedLevels,
    Identity,
    ZeroGradients,
)
from bigrad.errors import InputError


class BilevelCombinatorial(nn.Module):
    r"""The points of a leader and a follower, :math:`(x, y) = s(z, w)`, as a layer: the oracle solves both levels, the
    estimator gives the points a derivative.

    The three published forms are :class:`~bigrad.combinatorial.Blackbox` (each level differentiated with the other
    one's point fixed), :class:`~bigrad.combinatorial.BilevelBlackbox` (both solved again, tilted) and
    :class:`~bigrad.combinatorial.StraightThrough` (the gradients passed through, no solve). Where the levels share an
    objective, as in every interdiction, the second has an exact variant. **Where each has an objective of its own, all
    of them are heuristics**: no function is known whose gradient they are. The points are piecewise constant in any
    case, so compare with two-stage learning, a regression on the costs: where known costs are there to learn from, no
    loss on the points beat it in our trials, alone or beside it. A leader's regret at a known choice needs no
    estimator, see :meth:`~bigrad.combinatorial.BilevelOracle.value`.

    Args:
        oracle: what solves, such as :class:`~bigrad.combinatorial.Interdiction`.
        estimator: what differentiates: a :class:`~bigrad.combinatorial.BilevelEstimator`, or a single-level one such as
            ``Blackbox(20.0)``, which is then used on each level (:class:`~bigrad.combinatorial.FixedLevels`).
            ``Identity()`` by default.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"`` an answer that a limit of the oracle has left unproven.
        on_zero_gradient: ``"raise"``, ``"warn"`` (once for each level) or ``"ignore"``, where more than half of a
            batch's problems get a gradient of zero though points of lower loss exist.

    Attributes:
        certificate: what the last eager call has asked of the oracle and proven, completed by its backward pass.

    Raises:
        InputError: the costs have the wrong shape or dtype, are not finite, or lie outside the oracle's domain.
        NotConverged: a limit stopped the search under ``on_failure="raise"``.
        UnsupportedError: a second derivative or forward mode is asked for, or the estimator does not suit the oracle.

    Raises (in backward):
        NotConverged: a limit stopped the search of the tilted game.
        Stalled: gradients of zero under ``on_zero_gradient="raise"``.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Blackbox, Interdiction, ShortestPath
        >>> from bigrad.layers import BilevelCombinatorial
        >>> layer = BilevelCombinatorial(Interdiction(ShortestPath(), budget=1, order="max_min"), Blackbox(step=5.0))
        >>> z = torch.tensor([[1.0, 2.0, 5.0], [4.0, 1.0, 2.0], [5.0, 2.0, 1.0]], requires_grad=True)
        >>> w = torch.tensor([[0.0, 4.0, 4.0], [4.0, 4.0, 4.0], [4.0, 4.0, 0.0]], requires_grad=True)
        >>> x, y = layer(z, w)
        >>> x[1, 1].detach(), y[0, 1].detach()  # the centre is raised, and the path goes around it
        (tensor(1.), tensor(1.))
        >>> y[0, 1].backward()  # a loss that the path shall not go there
        >>> z.grad * 5
        tensor([[ 0., -1.,  0.],
                [ 0.,  1., -1.],
                [ 0.,  0.,  0.]])
        >>> float(layer.certificate.gap)
        0.0
    """

    certificate: BilevelCertificate | None

    def __init__(
        self,
        oracle: BilevelOracle,
        estimator: BilevelEstimator | Estimator | None = None,
        *,
        on_failure: OnFailure = "raise",
        on_zero_gradient: OnFailure = "warn",
    ) -> None:
        super().__init__()
        if not isinstance(oracle, BilevelOracle):
            raise InputError(
                f"BilevelCombinatorial: the oracle is {oracle!r}; wanted one of two levels, such as "
                "Interdiction(ShortestPath(), budget=3)"
            )
        estimator = Identity() if estimator is None else estimator
        if not isinstance(estimator, BilevelEstimator | Estimator):
            raise InputError(f"BilevelCombinatorial: the estimator is {estimator!r}; wanted one such as Blackbox(20.0)")
        self.oracle = oracle
        self.estimator = FixedLevels(estimator) if isinstance(estimator, Estimator) else estimator
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None
        reaction = check_on_failure(on_zero_gradient)
        self._zeros = ZeroGradients(reaction), ZeroGradients(reaction)

    @eager
    def forward(self, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The leader's and the follower's points ``(*batch, *event)`` for costs whose batches broadcast."""
        self.oracle.check_shapes(z, w)
        with precise(z.device):
            z, w = torch.broadcast_tensors(z, w)
            x, y, certificate = self.estimator.attach(self.oracle, z, w, self._zeros, self.on_failure)
        self.certificate = None if transforming() else certificate
        return x, y

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        parts = [f"oracle={self.oracle}"] if not isinstance(self.oracle, nn.Module) else []
        parts += [f"estimator={self.estimator}"] if not isinstance(self.estimator, nn.Module) else []
        parts += [f"on_failure={self.on_failure!r}", f"on_zero_gradient={self._zeros[0].reaction!r}"]
        return ", ".join(parts)
