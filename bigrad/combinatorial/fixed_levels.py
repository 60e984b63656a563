"""Each of two levels differentiated on its own, with the other one's point fixed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..calculus import transforming
from ..certificate import OnFailure
from ..errors import UnsupportedError
from .bilevel_certificate import BilevelCertificate
from .bilevel_estimator import BilevelEstimator, Zeros
from .bilevel_oracle import BilevelOracle
from .bilevel_solve import BilevelCall, bilevel_solve
from .estimator import Estimator


class FixedLevels(nn.Module, BilevelEstimator):
    r"""Each level on its own, the other one's point fixed: any single-level estimator, once for
    :math:`x(q)` and once for :math:`y(c)`.

    With :class:`Blackbox` the gradients are those of two separate solvers, :math:`\delta_y = \frac1\tau (y(c + \tau
    g_y) - y(c))` for a follower that minimises and :math:`\delta_x = \frac1\tau (x(q) - x(q - \tau g_x))` for a leader
    that maximises; with :class:`StraightThrough` they are :math:`-g_y` and :math:`+g_x`, the pass-through, which wants
    the gradient of a squared distance to the points, and not that of a Hamming distance. How one level would answer a
    move of the other is left out. What it costs is solves of single levels, none of both. The points are those of the
    game, also where the estimator's noise gives the gradient of a mean.

    Args:
        estimator: the single-level estimator of both levels, or of the leader's. One with a state is copied for the
            follower.
        follower: that of the follower's level.

    Raises (when it solves):
        UnsupportedError: the oracle has no solver of a single level.

    Source: Differentiation of Blackbox Combinatorial Solvers (Pogancic, Paulus, Musil, Martius, Rolinek, 2020), for one
    level.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Blackbox, FixedLevels, Interdiction, TopK
        >>> from bigrad.layers import BilevelCombinatorial
        >>> oracle = Interdiction(TopK(1, maximise=False), budget=1, order="max_min")
        >>> z = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
        >>> x, y = BilevelCombinatorial(oracle, FixedLevels(Blackbox(step=2.0)))(z, torch.tensor([5.0, 1.0, 1.0]))
        >>> x.tolist(), y.tolist()
        ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
        >>> torch.autograd.grad(2 * y[1], z)[0]
        tensor([ 0.0000, -0.5000,  0.5000])
    """

    def __init__(self, estimator: Estimator, follower: Estimator | None = None) -> None:
        super().__init__()
        if follower is None:
            follower = copy.deepcopy(estimator) if isinstance(estimator, nn.Module) else estimator
        self.leader, self.follower = estimator, follower

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        shown = [f"{name}={level}" for name, level in vars(self).items() if isinstance(level, Estimator)]
        return ", ".join(shown)

    def attach(
        self, oracle: BilevelOracle, z: Tensor, w: Tensor, zeros: Zeros, on_failure: OnFailure
    ) -> tuple[Tensor, Tensor, BilevelCertificate]:
        """Solve both levels, then each alone where a gradient may be wanted."""
        if oracle.follower is None:
            raise UnsupportedError(
                f"FixedLevels needs solvers of single levels, and {oracle} has none: set its attributes leader and "
                "follower, or take BilevelBlackbox"
            )
        certificate = self.certificate(oracle)
        x, y = bilevel_solve(BilevelCall(oracle, certificate, on_failure), z, w)
        if not (transforming() or (torch.is_grad_enabled() and (z.requires_grad or w.requires_grad))):
            return x, y, certificate
        q, c = oracle.costs(z, w, x, y)
        if oracle.leader is None:
            x = oracle.respond(z, w, x, y)
            _, c = oracle.costs(z, w, x, y)
        else:
            alone, certificate.leader = self.leader.attach(oracle.leader, q, zeros[0])
            x = x + (alone - alone.detach())
        alone, certificate.follower = self.follower.attach(oracle.follower, c, zeros[1])
        return x, y + (alone - alone.detach()), certificate
