"""Blackbox differentiation through both levels: one more solve of the game, tilted along the gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import OnFailure
from ..errors import UnsupportedError
from .bilevel_certificate import BilevelCertificate
from .bilevel_estimator import BilevelEstimator, Zeros
from .bilevel_oracle import BilevelOracle
from .bilevel_solve import Answer, BilevelCall, bilevel_solve
from .difference import Difference, difference_quotient
from .oracle import Oracle
from .rule import Sample
from .step import Step, check_step, step_sizes
from .zero_gradients import ZeroGradients


@dataclass(frozen=True)
class BilevelBlackbox(BilevelEstimator):
    r"""Both levels solved once more, each tilted towards points of lower loss: for a follower that minimises and a
    leader that maximises, with the term :math:`\langle a, x \rangle` that the oracle adds,

    .. math:: (x', y') = s(z + \tau g_y, w;\ a = -\tau g_x), \qquad \delta_y = \tfrac1\tau (y' - y), \qquad \delta_x =
        \tfrac1\tau (x - x').

    For known points of both levels these signs have trained best in our trials. They are the gradient of nothing.
    With ``exact=True`` both levels get the same sign, :math:`a = +\tau g_x`. Then the gradients :math:`\frac1\tau
    (y_\tau - y)` and :math:`\frac1\tau (x_\tau \odot y_\tau - x \odot y)` are, in a zero-sum game, exactly those of

    .. math:: L_\tau(z, w) = \tfrac1\tau \bigl( V(z + \tau g_y, w, \tau g_x) - V(z, w, 0) \bigr)

    with the value :math:`V(z, w, a)` of the game, a piecewise affine interpolation of the linearised loss. A loss of
    the leader's point alone wants them: under the other signs its gradient in ``z`` is that of the negated loss. But
    where both points count, the leader is moved towards higher loss. If the levels have objectives of their own, no
    value is behind the gradients, and both choices are heuristics.

    Args:
        step: :math:`\tau`: a number in the unit of cost over gradient, or a :class:`RelativeStep`.
        two_sided: difference both ways, for a second solve of both levels in backward.
        exact: the signs of the exact gradient, for losses of one point alone.

    Raises:
        InputError: the step is not positive.

    Source: Differentiation of Blackbox Combinatorial Solvers (Pogancic, Paulus, Musil, Martius, Rolinek, 2020), for one
    level.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import BilevelBlackbox, Interdiction, TopK
        >>> from bigrad.layers import BilevelCombinatorial
        >>> oracle = Interdiction(TopK(1, maximise=False), budget=1, order="max_min")
        >>> z = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
        >>> x, y = BilevelCombinatorial(oracle, BilevelBlackbox(step=2.0))(z, torch.tensor([5.0, 1.0, 1.0]))
        >>> torch.autograd.grad(2 * y[1], z)[0]
        tensor([ 0.0000, -0.5000,  0.5000])
    """

    step: Step = 20.0
    two_sided: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        check_step(self.step, "BilevelBlackbox")

    def attach(
        self, oracle: BilevelOracle, z: Tensor, w: Tensor, zeros: Zeros, on_failure: OnFailure
    ) -> tuple[Tensor, Tensor, BilevelCertificate]:
        """Solve both levels."""
        if not oracle.bilinear:
            raise UnsupportedError(
                f"BilevelBlackbox tilts an objective that both levels share, and those of {oracle} differ: take "
                "FixedLevels, or a single-level estimator in its place"
            )
        certificate = self.certificate(oracle)

        def pull(answer: Answer, g_x: Tensor, g_y: Tensor) -> tuple[Tensor, Tensor]:
            return self._pull(answer, g_x, g_y, zeros[1])

        return *bilevel_solve(BilevelCall(oracle, certificate, on_failure, pull), z, w), certificate

    def _pull(self, answer: Answer, g_x: Tensor, g_y: Tensor, zeros: ZeroGradients) -> tuple[Tensor, Tensor]:
        """The gradients of ``z`` and ``w``."""
        oracle = answer.call.oracle
        game = Game(oracle, answer.call.on_failure)
        cost = game.stack(torch.zeros_like(answer.z), answer.z, answer.w)
        points = game.stack(answer.x, answer.y)
        sample = Sample(game, cost, None, None, points.unsqueeze(0), answer.call.certificate)
        if self.exact:
            return self._exact(sample, game.stack(game.sense * g_x, g_y))
        rule = Difference(self.step, self.two_sided)
        cotangent = game.stack(g_x, g_y)
        pulled = rule.pull(sample, cotangent)
        zeros.note(rule, sample, cotangent, pulled)
        delta_x, delta_y, _ = pulled.unbind(-game.event_dims)
        return delta_y, answer.x * delta_y + game.sense * answer.y * delta_x

    def _exact(self, sample: Sample, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative of the value's difference quotient."""
        dims = sample.oracle.event_dims

        def slopes(points: Tensor) -> Tensor:
            x, y, none = points.unbind(-dims)
            return torch.stack([x * y, y, none], -dims)

        def solve(tilts: Tensor) -> Tensor:
            return slopes(sample.solve(sample.cost - sample.sign * tilts))

        sizes = step_sizes(self.step, sample.cost, cotangent, dims)
        sample.certificate.step = sizes
        rest = slopes(sample.points[0])
        quotient = difference_quotient(solve, rest, cotangent, sizes, two_sided=self.two_sided)
        by_w, by_z, _ = (-sample.sign * quotient).unbind(-dims)
        return by_z, by_w


class Game(Oracle):
    """Both levels as one oracle, of the costs ``(-a, z, w)`` of a zero-sum game to the points ``(x, y, 0)``.

    A leader of the same sense as the follower has ``+a`` in the place of ``-a``.
    """

    def __init__(self, oracle: BilevelOracle, on_failure: OnFailure) -> None:
        self.oracle, self.on_failure = oracle, on_failure
        self.event_dims, self.maximise = oracle.event_dims + 1, oracle.follower_maximises
        self.sense = 1.0 if oracle.leader_maximises == oracle.follower_maximises else -1.0

    def stack(self, first: Tensor, second: Tensor, third: Tensor | None = None) -> Tensor:
        """Three tensors ``(*batch, *event)`` as one, ``(*batch, 3, *event)``."""
        third = torch.zeros_like(first) if third is None else third
        return torch.stack([first, second, third], -self.event_dims)

    def project(self, cost: Tensor) -> Tensor:
        """The nearest costs in the domain, for the same ``w``."""
        tilt, z, w = cost.unbind(-self.event_dims)
        return self.stack(tilt, self.oracle.project(z, w), w)

    def solve(self, cost: Tensor) -> Tensor:
        """Both points."""
        tilt, z, w = cost.unbind(1)
        x, y, proof = self.oracle.search(z, w, self.sense * tilt)
        if proof is not None:
            proof.enforce(self.on_failure)
        return self.stack(x, y)
