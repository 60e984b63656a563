"""Quadratic programs by an interior point method that hands over to an exact search for the active set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..certificate import Certificate, Status
from ..compiled import runs_compiled
from ..equation import Problem
from ..errors import InputError
from .active_set import ActiveSystem, Curvature, Guess, KKTFactor, Search
from .central_path import Iterate
from .exchange import exchanged
from .findings import Findings, sizes_of
from .kkt import QuadraticKKT
from .scaled_program import Program, Scaling, equilibrate, largest, times
from .solvability import penalty_of
from .solver import Solver, check_stopping, tolerance

_WIDE = 2  # constraints per variable up to which that way is the shorter one
_VERDICT_AFTER = 15  # steps after which those left are tested for having no solution
_TRIES = 5  # active sets tried from one interior point
_ENTRY, _SURE = 1e-2, 1e-5  # fall of the gap that is worth a search: with a definite Q and few constraints, else
_AGAIN, _LAST = 0.1, 1e-15  # further fall before the next search, and the fall beyond which nothing is gained


@dataclass(frozen=True)
class InteriorPoint(Solver):
    """The set of active constraints, found by search, or from points of Mehrotra's predictor-corrector method.

    As soon as that set can be guessed, the equations that it makes are solved, corrected and verified; a verified point
    is the solution to rounding error, whatever the tolerance. Where ``Q`` is positive definite, the search runs in the
    dual; without many constraints it begins at once, and its ``steps`` are active sets.

    Args:
        rtol, atol: the KKT residual to reach, ``atol + rtol * |(q, b, h)|``; ``None`` is 1e-10 in float64 and 1e-5 in
            float32.
        max_steps: most interior point steps; the search in the dual tries half as many active sets before.
        compiled: whether numba's code, where constraints are exchanged one by one and counted as ``steps``, solves what
            it can: batches of programs with a definite ``Q``, up to 256 variables and constraints, and nothing weakly
            active; ``None``: where numba is installed, the data is in main memory, and the machine code can be kept on
            disk, as to compile it takes some ten seconds.

    Source: On the implementation of a primal-dual interior point method (Mehrotra, 1992).
    """

    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 50
    compiled: bool | None = None

    def __post_init__(self) -> None:
        check_stopping("InteriorPoint", self.rtol, self.atol, self.max_steps)

    def solve(self, problem: Problem, start: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Certificate]:
        """Solve for ``(y, nu, lam)`` ``(*batch, n + p + m)``; ``start`` gives the shape alone."""
        if not isinstance(problem, QuadraticKKT):
            raise InputError(
                f"InteriorPoint solves quadratic programs, found {type(problem).__name__}: give it to QuadraticProgram"
            )
        if runs_compiled(self.compiled, start):
            solved = exchanged(start, inputs, self.rtol, self.atol, self.max_steps // 2, self.compiled is True)
            if solved is not None:
                return solved
        program = problem.program(start, *inputs)
        found = Findings.nothing_yet(program)
        while True:
            scaled, units = equilibrate(program.without(found.status != Status.CONVERGED))
            alone = Curvature.of(scaled.Q, scaled)
            weight, convex = penalty_of(scaled, alone)
            if bool(convex.all()):
                break
            found.status = torch.where(convex, found.status, int(Status.INDEFINITE))
        penalty = weight if bool((weight > 0).any()) else None
        searched = None
        if penalty is None and scaled.d.shape[-1] <= _WIDE * scaled.q.shape[-1]:
            searched = found.through_dual(scaled, alone, self.max_steps // 2)
        if not bool(found.verified.all()):
            left = (~found.verified).nonzero().squeeze(-1)
            self._follow(scaled, _Open.of(left, scaled, penalty, alone), found)
            searched = None
        system = searched or ActiveSystem.of(scaled, found.active, penalty, alone)
        unique = system.unique()
        if searched is None:
            found.polish(system, unique)
        lost = (found.status != Status.CONVERGED).unsqueeze(-1)  # there is no answer
        found.y, found.mu = (torch.where(lost, torch.nan, part) for part in (found.y, found.mu))
        s = torch.cat([found.y * units.y_unit, found.mu * (units.row_unit / units.cost)], -1).reshape(start.shape)
        return s, self._certificate(problem, program, s, inputs, system, units, unique, found)

    @staticmethod
    def factor_at(problem: QuadraticKKT, s: Tensor, inputs: tuple[Tensor, ...]) -> KKTFactor:
        """The factor of the conditions' Jacobian at a solution ``s`` ``(*batch, n + p + m)``."""
        program = problem.program(s, *inputs)
        scaled, units = equilibrate(program)
        alone = Curvature.of(scaled.Q, scaled)
        weight = penalty_of(scaled, alone)[0]
        active = problem.active(s, inputs[2], inputs[4], inputs[5]).reshape(len(program.d), inputs[5].shape[-1])
        active = torch.cat([active.new_ones((len(active), program.equalities)), active], -1)
        penalty = weight if bool((weight > 0).any()) else None
        return KKTFactor(ActiveSystem.of(scaled, active, penalty, alone), units, s.shape[:-1])

    def _follow(self, program: Program, left: _Open, found: Findings) -> None:
        """Follow the central path of each problem ``left`` until its active set is found."""
        for step in range(1, self.max_steps + 1):
            left, ready, last = left.advanced(step == self.max_steps)
            closed = last
            if bool(ready.any()):
                some = ready.nonzero().squeeze(-1)
                part = left.take(some)
                guess = part.search()
                found.put(part.places, part.iterate, guess, step)
                closed = closed.index_put((some,), guess.verified, accumulate=True)
            if step == _VERDICT_AFTER and not bool(closed.all()):
                found.steps[left.places] = step
                closed = closed | found.judge(left.places, left.program)
            if bool(closed.all()):
                break
            if bool(closed.any()):
                left = left.take((~closed).nonzero().squeeze(-1))
        unsolved = ((found.status == Status.CONVERGED) & ~found.verified).nonzero().squeeze(-1)
        if unsolved.numel():
            found.judge(unsolved, program.take(unsolved))

    def _certificate(
        self,
        problem: QuadraticKKT,
        program: Program,
        s: Tensor,
        inputs: tuple[Tensor, ...],
        system: ActiveSystem,
        units: Scaling,
        unique: Tensor,
        found: Findings,
    ) -> Certificate:
        batch = s.shape[:-1]
        norm = problem.residual(s, *inputs).norm(dim=-1).reshape(found.status.shape)
        size = torch.cat([program.q, program.d], -1).norm(dim=-1)
        wanted = tolerance(self.rtol, self.atol, size)
        excess = times(program.C, s.reshape(len(norm), s.shape[-1])[:, : program.C.shape[-1]]) - program.d
        p = program.equalities
        violation = largest(torch.cat([excess[:, :p], excess[:, p:].clamp_min(0)], -1)).squeeze(-1)
        unsolved = torch.where(found.steps >= self.max_steps, int(Status.MAX_STEPS), int(Status.STALLED))
        status = torch.where(found.verified, int(Status.ROUNDING_FLOOR), unsolved)
        # The equation alone has further roots: violated constraints with a multiplier of zero.
        solved = (norm <= wanted) & (found.verified | (violation <= wanted))
        status = torch.where(solved, int(Status.CONVERGED), status)
        status = torch.where(unique, status, int(Status.SINGULAR))
        status = torch.where(found.status == Status.CONVERGED, status, found.status)
        return Certificate(
            "quadratic program",
            status.reshape(batch),
            norm.reshape(batch),
            wanted.reshape(batch),
            found.steps.reshape(batch),
            feasibility=violation.reshape(batch) if program.d.shape[-1] else None,
            margin=None if (margin := found.margin(system)) is None else margin.reshape(batch),
            factor=KKTFactor(system, units, batch) if bool((status < Status.MAX_STEPS).all()) else None,
        )


@dataclass(frozen=True)
class _Open:
    """The problems whose active set is not known yet.

    Attributes:
        places: where they are in the batch ``(b,)``.
        program: they themselves.
        penalty: as :class:`ActiveSystem` has it.
        alone: the curvature of ``Q`` by itself.
        iterate: where each is on its central path.
        entry: the gap ``(b,)`` at which the next search is worth its while.
        entered: the gap ``(b,)`` where the path begins.
    """

    places: Tensor
    program: Program
    penalty: Tensor | None
    alone: Curvature
    iterate: Iterate
    entry: Tensor
    entered: Tensor

    @classmethod
    def of(cls, places: Tensor, program: Program, penalty: Tensor | None, alone: Curvature) -> _Open:
        """Where the path of the problems at ``places`` begins."""
        if len(places) < len(program.q):
            program, alone = program.take(places), alone.take(places)
            penalty = None if penalty is None else penalty[places]
        iterate = Iterate.first(program, penalty)
        gap = iterate.gap.squeeze(-1)
        entry = _ENTRY * gap
        if penalty is not None:
            entry = torch.where(penalty.squeeze(-1) > 0, _SURE * gap, entry)
        return cls(places, program, penalty, alone, iterate, entry, gap)

    def take(self, index: Tensor) -> _Open:
        """Some of them."""
        if len(index) == len(self.places):
            return self
        penalty = None if self.penalty is None else self.penalty[index]
        return _Open(
            self.places[index],
            self.program.take(index),
            penalty,
            self.alone.take(index),
            self.iterate.take(index),
            self.entry[index],
            self.entered[index],
        )

    def advanced(self, final: bool) -> tuple[_Open, Tensor, Tensor]:
        """After one step: the problems, which of them are worth a search, and for which it is the last."""
        iterate, moved = self.iterate.advanced(self.program, self.penalty)
        gap = iterate.gap.squeeze(-1)
        last = ~moved | (gap <= _LAST * self.entered) | final
        few = self._guess(iterate).sum(-1) <= self.program.q.shape[-1]
        ready = last | ((gap <= self.entry) & (few | (gap <= _SURE * self.entered)))
        return replace(self, iterate=iterate, entry=torch.where(ready, _AGAIN * gap, self.entry)), ready, last

    def _guess(self, iterate: Iterate) -> Tensor:
        """The constraints that seem active ``(b, k)``: the multiplier is larger than the slack, each in its unit."""
        pull, extent = sizes_of(self.program, iterate.y)
        p = self.program.equalities
        above = iterate.lam * extent > iterate.slack * pull
        return torch.cat([above.new_ones((len(above), p)), above], -1)

    def search(self) -> Guess:
        """Look for the active set from here."""
        iterate = self.iterate
        sizes = sizes_of(self.program, iterate.y)[0], largest(iterate.y)
        search = Search(self.program, iterate.y, iterate.mu, self._guess(iterate), self.penalty, self.alone, *sizes)
        return search.run(_TRIES)
