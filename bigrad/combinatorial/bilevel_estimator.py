"""How the answers of two combinatorial levels get a derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..certificate import OnFailure
from .bilevel_certificate import BilevelCertificate
from .bilevel_oracle import BilevelOracle
from .zero_gradients import ZeroGradients

Zeros = tuple[ZeroGradients, ZeroGradients]


class BilevelEstimator(ABC):
    r"""How the two points of a :class:`BilevelOracle` get a derivative.

    With the gradients :math:`g_x, g_y` of a loss in the points, an estimator finds gradients :math:`\delta_x, \delta_y`
    in the linear costs :math:`q = w \odot y` and :math:`c = z + x \odot w` that the levels see; those of the inputs are
    :math:`\nabla_z = \delta_y` and :math:`\nabla_w = x \odot \delta_y + y \odot \delta_x`.

    Where the levels have objectives of their own, all of these are heuristics: no function is known whose gradient they
    are. The derivative of an interdiction's value is exact, and needs no estimator: see :meth:`BilevelOracle.value`.
    """

    @abstractmethod
    def attach(
        self, oracle: BilevelOracle, z: Tensor, w: Tensor, zeros: Zeros, on_failure: OnFailure
    ) -> tuple[Tensor, Tensor, BilevelCertificate]:
        """Both points ``(*batch, *event)`` with their derivatives, and the certificate, which backward completes.

        Args:
            oracle: the solver.
            z, w: ``(*batch, *event)``, of one shape.
            zeros: what is done about gradients of zero, of the leader's cost and of the follower's.
            on_failure: what is done about an answer that is not proven to be best.
        """

    def certificate(self, oracle: BilevelOracle) -> BilevelCertificate:
        """An empty one."""
        return BilevelCertificate(f"{type(self).__name__} over {type(oracle).__name__}")
