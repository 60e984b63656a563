"""The constraints of a cvxpy problem as the user wrote them, with what its parameters and variables promise."""

from __future__ import annotations

from typing import Any

import torch


def others(problem: Any, variables: list[Any]) -> list[Any]:
    """The variables of the problem that are not listed."""
    known = {variable.id for variable in variables}
    return [variable for variable in problem.variables() if variable.id not in known]


def attributes(leaf: Any) -> str:
    """What a parameter or variable promises of its values."""
    return ", ".join(name for name, value in leaf.attributes.items() if value is not None and value is not False)


def distance(leaf: Any, array: Any) -> float:
    """How far a value is from what its leaf promises."""
    return float(abs(array - leaf.project(array)).max())


def violation(problem: Any, values: list[tuple[Any, Any]]) -> tuple[float, str]:
    """The largest violation of a constraint or of a variable's promise, and what is violated.

    Args:
        problem: a ``cvxpy.Problem``.
        values: its parameters and variables, each with a value; what the user gave them is put back.
    """
    kept = [leaf.value for leaf, _ in values]
    worst, what = 0.0, ""
    try:
        for leaf, value in values:
            leaf.save_value(value)
        for constraint in problem.constraints:
            found = float(torch.as_tensor(constraint.violation()).max())
            if not found <= worst:
                worst, what = found, str(constraint)
        for variable in problem.variables():
            if attributes(variable) and not (found := distance(variable, variable.value)) <= worst:
                worst, what = found, f"that {variable.name()} is {attributes(variable)}"
    finally:
        for (leaf, _), value in zip(values, kept, strict=True):
            leaf.save_value(value)
    return worst, what
