"""The one outer loop: an algorithm's hyper-gradients in the hands of any torch optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ..certificate import Certificate
from ..errors import Diverged, InputError
from .algorithm import Algorithm, Cost, HyperGradient
from .bilevel_mdp import BilevelMDP, check_incentive
from .sobirl import SoBiRL

Progress = Callable[[int, HyperGradient], None]


@dataclass
class History:
    """What a run has seen, one number a step; the costs are totals so far.

    Attributes:
        value: the leader's number by the algorithm.
        squared_gradient: the squared norm of the algorithm's hyper-gradient.
        samples, reward_gradients, linear_solves, sweeps: see :class:`~bigrad.mdp.Cost`.
        judged: the steps that were judged by the exact hyper-gradient, at no cost to the algorithm.
        true_value, true_squared_gradient: the exact numbers at these.
    """

    value: list[float] = field(default_factory=list)
    squared_gradient: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    reward_gradients: list[int] = field(default_factory=list)
    linear_solves: list[int] = field(default_factory=list)
    sweeps: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)
    true_value: list[float] = field(default_factory=list)
    true_squared_gradient: list[float] = field(default_factory=list)

    def add(self, answer: HyperGradient, total: Cost) -> None:
        """Write one step down."""
        self.value.append(float(answer.value))
        self.squared_gradient.append(float(answer.gradient.square().sum()))
        for name in ("samples", "reward_gradients", "linear_solves", "sweeps"):
            getattr(self, name).append(getattr(total, name))

    def judge(self, step: int, exact: HyperGradient) -> None:
        """Write the exact numbers down."""
        self.judged.append(step)
        self.true_value.append(float(exact.value))
        self.true_squared_gradient.append(float(exact.gradient.square().sum()))


@dataclass
class Descent:
    """Where a run ended.

    Attributes:
        x: the last point.
        history: on the way.
        certificate: of the algorithm's last answer.
        cost: in all.
    """

    x: Tensor
    history: History
    certificate: Certificate
    cost: Cost


def descend(
    problem: BilevelMDP,
    algorithm: Algorithm,
    x: Tensor,
    *,
    steps: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
    judge_every: int | None = None,
) -> Descent:
    """Minimise the leader's number from ``x`` on.

    Args:
        problem: leader and follower.
        algorithm: what computes the hyper-gradients.
        x: where to start; it is left as it is.
        steps: how many.
        optimizer: makes one of the parameters, as ``lambda parameters: torch.optim.SGD(parameters, lr=0.1)``.
        scheduler: makes one of the optimizer, for steps that shrink.
        generator: draws the samples; the same seed gives the same run.
        progress: called after every hyper-gradient with the step's number and the answer.
        judge_every: how often the exact numbers are written down too; ``None`` is never.

    Raises:
        InputError: a reward on which ``x`` has no bearing.
        Diverged: the point, the number or the hyper-gradient became infinite or NaN.

    Example:
        >>> import torch
        >>> from bigrad.mdp import MSoBiRL, descend
        >>> from bigrad.problems import synthetic_problem
        >>> problem = synthetic_problem(torch.Generator().manual_seed(0), states=4, actions=2, parameters=5)
        >>> run = descend(problem, MSoBiRL(), problem.init, steps=200, optimizer=lambda p: torch.optim.SGD(p, lr=0.05))
        >>> abs(run.history.value[-1] - problem.optimum) < 1e-3
        True
    """
    if steps < 1:
        raise InputError(f"steps is {steps}; wanted at least 1")
    check_incentive(problem, x.detach())
    parameter = x.detach().clone().requires_grad_()
    stepper = optimizer([parameter])
    schedule = None if scheduler is None else scheduler(stepper)
    history, total, memory, judge = History(), Cost(), None, SoBiRL()
    for step in range(steps):
        answer = algorithm(problem, parameter.detach(), memory, generator)
        memory, total = answer.memory, total + answer.cost
        if not bool(answer.value.isfinite() & answer.gradient.isfinite().all()):
            raise Diverged(
                f"step {step}: the leader's number is {float(answer.value):.3g} and the hyper-gradient's norm "
                f"{float(answer.gradient.norm()):.3g}; wanted finite numbers: take a smaller lr",
                answer.certificate,
            )
        history.add(answer, total)
        if judge_every is not None and (step % judge_every == 0 or step == steps - 1):
            history.judge(step, judge(problem, parameter.detach()))
        if progress is not None:
            progress(step, answer)
        parameter.grad = answer.gradient.clone()
        stepper.step()
        if schedule is not None:
            schedule.step()
    return Descent(parameter.detach().clone(), history, answer.certificate, total)
