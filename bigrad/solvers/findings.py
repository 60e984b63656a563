"""What is known of each problem of a batch of quadratic programs, from the first guess to the proof."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..certificate import Status
from .active_set import ActiveSystem, Curvature, Guess, Search, negligible
from .central_path import Iterate
from .dual_path import Dual
from .scaled_program import Program, largest, times, triangular
from .solvability import verdict


@dataclass
class Findings:
    """What is known of each problem of the batch, in equilibrated units.

    Attributes:
        y: ``(B, n)``.
        mu: ``(B, k)``.
        active: bool ``(B, k)``.
        verified: whether the point is proved to be the solution.
        steps: active sets tried, or interior point steps used where the search needed them.
        status: why there is no solution, ``CONVERGED`` where nothing is known against one.
    """

    y: Tensor
    mu: Tensor
    active: Tensor
    verified: Tensor
    steps: Tensor
    status: Tensor

    @classmethod
    def nothing_yet(cls, program: Program) -> Findings:
        """At zero, with the equations active; problems that are not finite are marked."""
        mu = torch.zeros_like(program.d)
        steps = torch.zeros(len(mu), dtype=torch.int64, device=mu.device)
        equations = torch.arange(mu.shape[-1], device=mu.device) < program.equalities
        # One infinite or NaN number spoils the sum.
        total = program.Q.sum((-2, -1)) + program.C.sum((-2, -1)) + program.q.sum(-1) + program.d.sum(-1)
        finite = total.isfinite()
        status = torch.where(finite, int(Status.CONVERGED), int(Status.NON_FINITE))
        active = equations.expand(mu.shape).clone()
        return cls(torch.zeros_like(program.q), mu, active, torch.zeros_like(finite), steps, status)

    def through_dual(self, program: Program, alone: Curvature, steps: int) -> ActiveSystem:
        """Find active sets in the dual, keep what is verified, and return the system of these sets."""
        dual = Dual.of(program, alone)
        mu, active, settled, self.steps = dual.settle(steps)
        half = triangular(alone.factor, program.q) + times(alone.rows, mu)
        y = -triangular(alone.factor, half, transposed=True)
        sizes = sizes_of(program, y)[0], largest(y)
        search = Search(program, y, alone.unit * mu, active, None, alone, *sizes)
        system = ActiveSystem.of(program, active, None, alone)
        guess, following = search.judged(system)
        self.verified = settled & guess.verified & (following == active).all(-1)
        self.y, self.mu, self.active = guess.y, guess.mu, active
        return system

    def put(self, places: Tensor, iterate: Iterate, guess: Guess, step: int) -> None:
        """Keep what a search found; where it is not verified, the interior point it began from."""
        kept = guess.verified.unsqueeze(-1)
        self.y[places] = torch.where(kept, guess.y, iterate.y)
        self.mu[places] = torch.where(kept, guess.mu, iterate.mu)
        self.active[places], self.verified[places], self.steps[places] = guess.active, guess.verified, step

    def judge(self, places: Tensor, program: Program) -> Tensor:
        """Look for a reason why these problems have no solution; for which there is one."""
        status = verdict(program)
        self.status[places] = status
        return status != Status.CONVERGED

    def polish(self, system: ActiveSystem, unique: Tensor) -> None:
        """One more Newton step where the active set is known and makes the point unique."""
        y, mu = system.improve(self.y, self.mu)
        program = system.program
        excess = (times(program.C, y) - program.d)[:, program.equalities :]
        inside = (excess <= negligible(y.dtype) * (program.d[:, program.equalities :].abs() + largest(y))).all(-1)
        kept = (self.verified & unique & inside).unsqueeze(-1)
        self.y, self.mu = torch.where(kept, y, self.y), torch.where(kept, mu, self.mu)

    def margin(self, system: ActiveSystem) -> Tensor | None:
        """The least of max(multiplier, slack) over the inequalities, relative to the gradient's and the row's size."""
        program = system.program
        p = program.equalities
        dependent = system.dependent
        if program.d.shape[-1] == p:
            return torch.where(dependent, 0.0, torch.inf) if bool(dependent.any()) else None
        pull, extent = sizes_of(program, self.y)
        force = self.mu[:, p:] / pull
        slack = (program.d - times(program.C, self.y))[:, p:] / (program.d[:, p:].abs() + extent)
        least = torch.maximum(force, slack).amin(-1).clamp_min(0).to(program.q.dtype)
        return torch.where(dependent, 0.0, least)


def sizes_of(program: Program, y: Tensor) -> tuple[Tensor, Tensor]:
    """The sizes of the gradient's terms and of the constraints' terms, each ``(B, 1)`` and positive."""
    pull = largest(program.q) + largest(times(program.Q, y))
    extent = largest(program.d) + largest(y)
    return torch.where(pull > 0, pull, 1.0), torch.where(extent > 0, extent, 1.0)
