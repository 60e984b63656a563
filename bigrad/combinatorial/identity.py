"""Negative identity: the solver's Jacobian is replaced by that of a projection of the cost."""

from __future__ import annotations

from dataclasses import dataclass

from .estimator import Estimator
from .pass_through import PassThrough


@dataclass(frozen=True)
class Identity(Estimator):
    r"""One solve, none in backward: the gradient :math:`-J_P^\top g` where the oracle minimises and :math:`+J_P^\top g`
    where it maximises, with the Jacobian of the projection :math:`P(w) = (w - \bar w) / \|w - \bar w\|`.

    The solution does not change with the length of a cost, and with a constant added to it where all solutions have
    equally many ones. Without the projection these two directions of the cost drift. It is also the default where
    centring does change solutions: it acts on the gradient alone, and the solution stays that of the cost itself.

    Args:
        centre: take away the mean of the gradient.
        normalise: take away what only changes the cost's length.

    Source: Backpropagation through Combinatorial Algorithms: Identity with Projection Works (Sahoo, Paulus, Vlastelica,
    Musil, Kuleshov, Martius, 2023).

    Example:
        >>> import torch
        >>> from bigrad.combinatorial import Identity, TopK
        >>> from bigrad.layers import Combinatorial
        >>> layer = Combinatorial(TopK(1), Identity(centre=False, normalise=False))
        >>> score = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
        >>> layer(score).detach()
        tensor([0., 1., 0.])
        >>> torch.autograd.grad(layer(score)[0], score)[0]  # TopK maximises
        tensor([1., 0., 0.])
    """

    centre: bool = True
    normalise: bool = True

    @property
    def rule(self) -> PassThrough:
        """The identity rule with the projection."""
        return PassThrough(self.centre, self.normalise)
