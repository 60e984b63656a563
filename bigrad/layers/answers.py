"""Two-level programs whose follower is a layer that answers ``x`` with its solution, and no objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Anticipation(nn.Module):
    """The leader's objective as a function of its own variable alone: ``x -> leader(x, follower(x))``."""

    def __init__(self, leader: Callable[..., Tensor], follower: nn.Module) -> None:
        super().__init__()
        self.leader, self.follower = leader, follower

    def forward(self, x: Tensor, *inputs: Any) -> Tensor:
        """The leader's value at ``x``."""
        return self.leader(x, self.answer(x, *inputs), *inputs)

    def answer(self, x: Tensor, *inputs: Any) -> Any:
        """The follower's answer to ``x``."""
        return alone(self.follower(x, *inputs))


class MutualAnswers(nn.Module):
    """Each level answers the other: ``x -> leader(follower(x))``, whose fixed point is where neither moves."""

    def __init__(self, leader: nn.Module, follower: nn.Module) -> None:
        super().__init__()
        self.leader, self.follower = leader, follower

    def forward(self, x: Tensor, *inputs: Any) -> Any:
        """The leader's answer to the follower's answer to ``x``."""
        return alone(self.leader(self.answer(x, *inputs), *inputs))

    def answer(self, x: Tensor, *inputs: Any) -> Any:
        """The follower's answer to ``x``."""
        return alone(self.follower(x, *inputs))


def alone(answers: Any) -> Any:
    """The answer itself where there is only one variable."""
    return answers[0] if isinstance(answers, tuple) and len(answers) == 1 else answers
