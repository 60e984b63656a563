"""Min-max: the follower chooses points, then a leader raises the costs that harm them most; thresholds decide it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UnsupportedError
from .search import Proof, proof

ROUNDING = 1e-12  # of the sum of a problem's costs: a smaller gap is none


class FollowerFirst:
    r"""The best of :math:`\min_y \max_x \langle z + x \odot w, y \rangle + \langle a, x \rangle` over 0/1 points ``y``
    and sets ``x`` of at most ``k`` cells, for a batch of problems ``(B, n)``.

    .. math:: \min_\theta\ k \theta + C(\theta), \qquad C(\theta) = \sum_i (a_i - \theta)_+ + \min_y \sum_i
        \bigl( z_i + (w_i + a_i - \theta)_+ - (a_i - \theta)_+ \bigr) y_i

    where :math:`\theta` is zero or one of the :math:`w_i + a_i` and :math:`a_i`. :math:`C` falls, so
    between two solved thresholds no value is below the first's :math:`k \theta` plus the last's :math:`C`: intervals
    are halved until that is no less than the best value found.

    Args:
        answer: costs ``(m, n)`` to the follower's points.
        z, w, a: the costs.
        budget: ``k``.
    """

    def __init__(self, answer: Callable[[Tensor], Tensor], z: Tensor, w: Tensor, a: Tensor, budget: int) -> None:
        self.answer, self.z, self.w, self.a, self.budget = answer, z, w, a, min(budget, z.shape[1])
        self.rounding = ROUNDING * (z.abs() + w.abs() + a.abs()).sum(1)
        thresholds = torch.cat([torch.zeros_like(z[:, :1]), (w + a).clamp_min(0), a.clamp_min(0)], 1)
        self.thresholds = thresholds.sort(1).values
        self.best, self.y = torch.full_like(z[:, 0], torch.inf), torch.zeros_like(z)
        self.solved = torch.zeros(len(z), dtype=torch.int64, device=z.device)

    def search(self) -> tuple[Tensor, Tensor, Proof]:
        """Raised cells and points ``(B, n)``, and their certificate."""
        owner = torch.arange(len(self.z), device=self.z.device)
        low, high = torch.zeros_like(owner), torch.full_like(owner, self.thresholds.shape[1] - 1)
        self._solve(owner, low)
        below = self._solve(owner, high)
        while len(owner):
            step = torch.minimum(low + 1, high)
            least = self.budget * self.thresholds[owner, step] + below
            live = (high - low > 1) & (least < (self.best - self.rounding)[owner])
            owner, low, high, below = owner[live], low[live], high[live], below[live]
            middle = (low + high) // 2
            at_middle = self._solve(owner, middle)
            owner, below = torch.cat([owner, owner]), torch.cat([at_middle, below])
            low, high = torch.cat([low, middle]), torch.cat([middle, high])
        raised = self._harm(self.y, self.w, self.a)[1]
        return raised, self.y, proof("interdiction", self.best, self.best, self.solved)

    def _solve(self, owner: Tensor, place: Tensor) -> Tensor:
        """C at one threshold for each owner; the points that are found there may be the best of their problem."""
        if not len(owner):
            return self.best[owner]
        z, w, a = self.z[owner], self.w[owner], self.a[owner]
        theta = self.thresholds[owner, place][:, None]
        rest = (a - theta).clamp_min(0)
        costs = z + (w + a - theta).clamp_min(0) - rest
        y = self.answer(costs)
        if not bool(((y == 0) | (y == 1)).all()):
            raise UnsupportedError(
                "Interdiction: where the follower is first its points must be 0/1; take the other order for this oracle"
            )
        value = (z * y).sum(1) + self._harm(y, w, a)[0]
        best = self.best.scatter_reduce(0, owner, value, "amin")
        row = torch.arange(len(owner), device=owner.device)
        row = torch.where((value == best[owner]) & (value < self.best[owner]), row, len(owner))
        first = torch.full_like(self.solved, len(owner)).scatter_reduce(0, owner, row, "amin")
        better = first < len(owner)
        self.y[better] = y[first[better]]
        self.best = best
        self.solved += torch.bincount(owner, minlength=len(self.z))
        return rest.sum(1) + (costs * y).sum(1)

    def _harm(self, y: Tensor, w: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """The most that a leader adds to points, and the cells it raises for that."""
        gain = (w * y + a).clamp_min(0)
        most = gain.topk(self.budget, dim=1)
        raised = torch.zeros_like(gain).scatter_(1, most.indices, 1) * (gain > 0)
        return most.values.sum(1), raised.bool()
