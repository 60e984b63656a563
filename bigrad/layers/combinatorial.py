"""The combinatorial layer."""

from __future__ import annotations

from torch import Tensor, nn

from bigrad.calculus import eager, transforming
from bigrad.certificate import OnFailure, check_on_failure
from bigrad.combinatorial import Estimator, Identity, Oracle, OracleCertificate, ZeroGradients
from bigrad.errors import InputError


class Combinatorial(nn.Module):
    r"""The solution :math:`\arg\min_y \langle w, y \rangle` of a combinatorial problem as a layer: the oracle solves,
    the estimator gives the solution a derivative.

    The derivative is an estimate, of a map that is piecewise constant: read each estimator for what it estimates. In
    forward, an estimator with noise hands back the mean solution over its samples.

    Args:
        oracle: what solves, such as :class:`~bigrad.combinatorial.ShortestPath`; it says its shapes, and whether it
            minimises.
        estimator: what differentiates; by default :class:`~bigrad.combinatorial.Identity`, one solve and none in
            backward.
        on_zero_gradient: ``"raise"``, ``"warn"`` (once a layer) or ``"ignore"``, where more than half of the gradients
            come out as zero though a solution of lower loss exists: what a step too small does. To tell, one such
            problem a backward pass is solved once more. The certificate has the counts in any case.

    Attributes:
        certificate: what the last eager call has asked of the oracle, completed by its backward pass.

    Raises:
        InputError: the cost has the wrong shape or dtype, is not finite, or lies outside the oracle's domain.
        UnsupportedError: a second derivative or forward mode is asked for.

    Raises (in backward):
        Stalled: gradients of zero under ``on_zero_gradient="raise"``.

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Blackbox, ShortestPath
        >>> from bigrad.layers import Combinatorial
        >>> layer = Combinatorial(ShortestPath(), Blackbox(step=20.0))
        >>> cost = torch.tensor([[1.0, 9.0, 9.0], [1.0, 1.0, 9.0], [9.0, 9.0, 1.0]], requires_grad=True)
        >>> path = layer(cost)
        >>> path.detach()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
        >>> path[1, 1].backward()  # the centre costs a loss: raise its cost, and lower those of the way around it
        >>> cost.grad * 20
        tensor([[ 0.,  0.,  0.],
                [ 1., -1.,  0.],
                [ 0.,  1.,  0.]])
        >>> layer.certificate.solves, int(layer.certificate.zero_gradients.sum())
        (2, 0)
    """

    certificate: OracleCertificate | None

    def __init__(
        self, oracle: Oracle, estimator: Estimator | None = None, *, on_zero_gradient: OnFailure = "warn"
    ) -> None:
        super().__init__()
        if not isinstance(oracle, Oracle):
            raise InputError(
                f"Combinatorial: the oracle is {oracle!r}; wanted one of bigrad.combinatorial, or "
                "bigrad.combinatorial.oracle(function) for a solver of your own"
            )
        if not (estimator is None or isinstance(estimator, Estimator)):
            raise InputError(f"Combinatorial: the estimator is {estimator!r}; wanted one such as Blackbox(step=20.0)")
        self.oracle = oracle
        self.estimator = Identity() if estimator is None else estimator
        self.certificate = None
        self._zeros = ZeroGradients(check_on_failure(on_zero_gradient))

    @eager
    def forward(self, cost: Tensor) -> Tensor:
        """The solution, or its mean over the estimator's samples, for costs ``(*batch, *event)``."""
        y, certificate = self.estimator.attach(self.oracle, cost, self._zeros)
        self.certificate = None if transforming() else certificate
        return y

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        parts = [f"oracle={self.oracle}"] if not isinstance(self.oracle, nn.Module) else []
        parts += [f"estimator={self.estimator}"] if not isinstance(self.estimator, nn.Module) else []
        return ", ".join([*parts, f"on_zero_gradient={self._zeros.reaction!r}"])
