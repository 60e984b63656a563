"""Shortest tours by OR-Tools, one problem at a time."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..errors import MissingPackage, NotConverged

UNITS = 10**9  # that the largest cost is made of


def circuit(cost: Tensor, seconds: float) -> Tensor:
    """The node that follows each ``(n,)`` on the shortest tour, for costs ``(n, n)``.

    Raises:
        MissingPackage: OR-Tools is not installed.
        NotConverged: the tour is not proven within ``seconds``.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise MissingPackage("ortools", "tour", f"a Tour through {len(cost)} nodes, more than 12") from error

    off_diagonal = cost.double().fill_diagonal_(0)
    largest = float(off_diagonal.abs().max()) or 1.0
    whole = (off_diagonal * (UNITS / largest)).round().long().tolist()
    model, solver = cp_model.CpModel(), cp_model.CpSolver()
    arcs = {(i, j): model.new_bool_var("") for i, j in itertools.permutations(range(len(cost)), 2)}
    model.add_circuit([(i, j, taken) for (i, j), taken in arcs.items()])
    model.minimize(sum(whole[i][j] * taken for (i, j), taken in arcs.items()))
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.linearization_level = 2  # with cuts from all of the circuit: a hundred times faster
    solver.parameters.num_workers = 1  # with more, the tour taken among equals depends on the moment
    status = solver.solve(model)
    if status == cp_model.OPTIMAL:
        return torch.tensor([j for (_, j), taken in arcs.items() if solver.value(taken)])
    found = "no tour was found"
    if status == cp_model.FEASIBLE:
        gap = (solver.objective_value - solver.best_objective_bound) / max(abs(solver.objective_value), 1.0)
        found = f"a tour with a gap of {gap:.3g} was found"
    raise NotConverged(f"Tour: {found} in {seconds} s through {len(cost)} nodes, wanted a gap of 0; allow more seconds")
