"""Convex programs written in cvxpy, as a layer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from math import isfinite, nan, prod
from typing import Any

import torch
from torch import Tensor, nn

from bigrad.calculus import eager, transforming
from bigrad.certificate import Certificate, OnFailure, Status, check_on_failure
from bigrad.conic import Call, CanonicalForm, attributes, distance, inward, others, sealed, violation
from bigrad.errors import InputError, MissingPackage, SolveWarning, Stalled, UnsupportedError

NOT_TAKEN = ("complex", "hermitian", "imag", "boolean", "integer", "diag", "sparsity")
ROUNDING = 1e-6  # by how much a value may miss its parameter's sign or symmetry: float32 values come rounded


class ConvexProgram(nn.Module):
    r"""The solution :math:`y^*(\theta) = \arg\min_y f(y, \theta)` with :math:`y \in C(\theta)` of a cvxpy problem.

    cvxpylayers turns the problem into a cone program once. Each call solves it in float64 on the CPU by an interior
    point method, tests the answer against the constraints as they were written, and differentiates the optimality
    conditions by a factorisation whose residual and rank are known.

    Where a constraint is weakly active (``certificate.margin`` near zero: neither its slack nor its multiplier is
    positive), the derivative is one of several, as that of ReLU at zero. At a vertex of a linear program the derivative
    with respect to the costs is zero. Where the answer is not unique in a direction that matters, or has no derivative
    with respect to a value that requires one, backward ends with :class:`bigrad.errors.Singular`. Not available are
    second derivatives, forward mode and ``torch.func``; ``torch.compile`` breaks its graph here.

    Args:
        problem: a ``cvxpy.Problem`` that is DPP, with linear, second-order, semidefinite, exponential or power cones.
        parameters: all ``cvxpy.Parameter`` objects of the problem, in the order of the values.
        variables: the ``cvxpy.Variable`` objects to return.
        rtol: largest norm of the residual of the optimality conditions, relative to their largest term.
        feasibility: largest violation of a constraint, relative to one plus the largest entry of the variables.
        max_steps: most iterations of the interior point method.
        on_failure: ``"raise"``, ``"warn"`` or ``"ignore"``. Where there is no answer, it is NaN under the last two.

    Attributes:
        certificate: how the last call ended; ``feasibility`` is the largest violation of the problem's constraints.

    Raises:
        MissingPackage: cvxpylayers is not installed.
        InputError: the problem, a parameter, a variable or a value does not fit.
        UnsupportedError: integer or complex variables, a second derivative, forward mode, ``torch.func``.
        SolveError: the program is infeasible or unbounded, or its answer or (in backward) its derivative is inaccurate.

    Source: Differentiable Convex Optimization Layers, Agrawal et al., 2019.

    Example:
        >>> import cvxpy, torch
        >>> from bigrad.layers import ConvexProgram
        >>> y, point = cvxpy.Variable(3), cvxpy.Parameter(3)
        >>> problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(y - point)), [y >= 0])
        >>> layer = ConvexProgram(problem, [point], [y])
        >>> x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
        >>> (projection,) = layer(x)
        >>> projection.sum().backward()
        >>> x.grad
        tensor([1., 0., 1.])
    """

    certificate: Certificate | None

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        *,
        rtol: float = 1e-9,
        feasibility: float = 1e-6,
        max_steps: int = 200,
        on_failure: OnFailure = "raise",
    ) -> None:
        super().__init__()
        if not (rtol > 0 and feasibility > 0 and max_steps >= 1):
            found = f"rtol={rtol}, feasibility={feasibility}, max_steps={max_steps}"
            raise InputError(f"ConvexProgram: {found}; the tolerances must be positive and max_steps at least 1")
        self.rtol, self.feasibility, self.max_steps = rtol, feasibility, max_steps
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None
        self._problem, self._given, self._returned = problem, list(parameters), list(variables)
        self._program = _canonicalised(self._problem, self._given, self._returned)

    @eager
    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Solve for these values of the parameters.

        Args:
            values: one tensor ``(*batch, *parameter.shape)`` for each parameter, of one dtype and device. Those
                without batch dimensions are shared by the batch.

        Returns:
            One tensor ``(*batch, *variable.shape)`` for each variable, of that dtype and on that device.
        """
        if transforming():
            raise UnsupportedError("ConvexProgram does not run under torch.func: call backward in eager mode")
        batch = self._batch(values)
        wanted = [value.requires_grad for value in values]
        call = Call(self.rtol, self.max_steps, self.on_failure, batch, self._usable(values, batch), wanted)
        # cvxpylayers reads the upper triangle of a symmetric matrix, and would give the lower one no gradient.
        inside = [
            inward(value, value.ndim - len(parameter.shape), _is_symmetric(parameter), "ConvexProgram")
            for value, parameter in zip(values, self._given, strict=True)
        ]
        answers = sealed(lambda numbers: self._program(numbers, call), inside)
        self.certificate = call.certify()
        self._test(self.certificate, inside, answers)
        return tuple(
            answer.reshape((*batch, *variable.shape)).to(values[0])
            for answer, variable in zip(answers, self._returned, strict=False)
        )

    def _batch(self, values: tuple[Tensor, ...]) -> torch.Size:
        """The batch's shape, where the values fit the parameters and each other."""
        if len(values) != len(self._given):
            wanted = ", ".join(parameter.name() for parameter in self._given)
            raise InputError(f"ConvexProgram wants {len(self._given)} values ({wanted}), found {len(values)}")
        shapes: dict[torch.Size, str] = {}
        for value, parameter in zip(values, self._given, strict=True):
            name, shape = parameter.name(), tuple(parameter.shape)
            if not (isinstance(value, Tensor) and value.is_floating_point() and value.device.type != "meta"):
                kind = f"{value.dtype} on {value.device}" if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"ConvexProgram: the value of {name} must be a real floating tensor, found {kind}")
            lead = value.ndim - len(shape)
            if lead < 0 or tuple(value.shape[lead:]) != shape or not value.numel():
                raise InputError(
                    f"ConvexProgram: the value of {name} has shape {tuple(value.shape)}; wanted (*batch, *{shape}), "
                    "with at least one problem in the batch"
                )
            if (value.dtype, value.device) != (values[0].dtype, values[0].device):
                raise InputError(
                    f"ConvexProgram: {self._given[0].name()} is {values[0].dtype} on {values[0].device}, {name} is "
                    f"{value.dtype} on {value.device}; bring all values to one dtype and device"
                )
            if lead:
                shapes.setdefault(value.shape[:lead], name)
        if len(shapes) > 1:
            found = ", ".join(f"{tuple(shape)} of {name}" for shape, name in shapes.items())
            raise InputError(f"ConvexProgram: batch shapes {found}; all batched values must have one batch shape")
        return next(iter(shapes), torch.Size())

    def _usable(self, values: tuple[Tensor, ...], batch: torch.Size) -> Tensor:
        """Which problems have finite values; those of the other problems must keep their parameters' promises."""
        usable = torch.ones(prod(batch), dtype=torch.bool)
        for value, parameter in zip(values, self._given, strict=True):
            rows = value.detach().cpu().double().reshape(-1, parameter.size)
            finite = rows.isfinite().all(-1)
            if self.on_failure == "raise" and not finite.all():
                raise InputError(
                    f"ConvexProgram: the value of {parameter.name()} has {int((~rows.isfinite()).sum())} entries that "
                    'are NaN or infinite; give finite values, or on_failure="warn" to solve the other problems'
                )
            usable &= finite
            for row in rows[finite] if attributes(parameter) else ():
                missed = distance(parameter, row.reshape(parameter.shape).numpy())
                if missed > ROUNDING * (1 + float(row.abs().max())):
                    raise InputError(
                        f"ConvexProgram: the value of {parameter.name()} is {missed:.3g} away from being "
                        f"{attributes(parameter)}, on which the problem's convexity rests"
                    )
        return usable

    def _test(self, certificate: Certificate, inside: list[Tensor], answers: Sequence[Tensor]) -> None:
        """Measure the constraints as the user wrote them, and fail where an answer breaks one."""
        leaves = [*self._given, *self._returned, *others(self._problem, self._returned)]
        pairs = zip([*inside, *answers], leaves, strict=True)
        flat = [tensor.detach().reshape(-1, *leaf.shape) for tensor, leaf in pairs]
        found = []
        for place in range(certificate.status.numel()):
            at = [tensor[place if len(tensor) > 1 else 0] for tensor in flat]
            size = float(torch.cat([tensor.flatten() for tensor in at[len(inside) :]]).abs().max())
            values = [(leaf, tensor.numpy()) for leaf, tensor in zip(leaves, at, strict=True)]
            most, what = violation(self._problem, values) if isfinite(size) else (nan, "")
            found.append((most, what, self.feasibility * (1 + size)))
        certificate.feasibility = torch.tensor([it[0] for it in found]).double().reshape(certificate.status.shape)
        certificate.enforce(self.on_failure)
        failed = certificate.failed.reshape(-1).tolist()
        for place, (most, what, allowed) in enumerate(found):
            if not (failed[place] or most <= allowed):
                certificate.status.view(-1)[place] = int(Status.STALLED)
                self._object(
                    f"convex program (problem {place} of {len(found)}) violates {what} by {most:.3g}, wanted at most "
                    f"{allowed:.3g}. Remedy: rescale the problem, or loosen feasibility.",
                    certificate,
                )

    def _object(self, message: str, certificate: Certificate) -> None:
        if self.on_failure == "raise":
            raise Stalled(message, certificate)
        if self.on_failure == "warn":
            warnings.warn(message, SolveWarning, stacklevel=2)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        given, returned = (
            ", ".join(f"{leaf.name()}{leaf.shape}" for leaf in part) for part in (self._given, self._returned)
        )
        settings = f"rtol={self.rtol}, feasibility={self.feasibility}, max_steps={self.max_steps}"
        return f"parameters=[{given}], variables=[{returned}], {settings}, on_failure={self.on_failure!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvexProgram:
        # The problem is only read, and a copy of it would have other parameters than those that the user knows.
        memo |= {id(shared): shared for shared in (self._problem, *self._given, *self._returned)}
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_program": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's
        self._program = _canonicalised(self._problem, self._given, self._returned)


def _canonicalised(problem: Any, parameters: list[Any], variables: list[Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The problem as a function of its parameters' values and a call, through cvxpylayers."""
    try:
        import cvxpy
        from cvxpy.reductions.solvers.conic_solvers.clarabel_conif import CLARABEL
        from cvxpylayers.interfaces.base import SolverInterface
        from cvxpylayers.torch.cvxpylayer import CvxpyLayer
    except ImportError as error:
        raise MissingPackage("cvxpylayers", "convex", "ConvexProgram") from error
    _check_problem(problem, parameters, variables, cvxpy)

    class Interface(SolverInterface):
        canon_solver = "CLARABEL"
        supports_quad_obj = True

        def setup(self, ctx: Any) -> None:
            self.form = CanonicalForm(ctx, CLARABEL())

        def solve_torch_batch(
            self, P: Any, q: Any, A: Any, dims: Any, solver_args: dict[str, Any], needs_grad: bool
        ) -> tuple[Any, Any, Any]:
            call = solver_args["call"]
            return *self.form.solve(P, q, A, call), call

        def derivative_torch_batch(self, dprimal: Any, ddual: Any, saved_state: Any) -> tuple[Any, Any, Any]:
            return self.form.pull_back(dprimal, saved_state)

    try:
        layer = CvxpyLayer(problem, parameters, [*variables, *others(problem, variables)], solver=Interface())
    except (ValueError, cvxpy.DCPError) as error:
        rules = "see cvxpy's rules of disciplined parametrised programming (DPP)"
        raise InputError(f"ConvexProgram cannot take the problem: {error} For a remedy {rules}.") from error
    except (NotImplementedError, cvxpy.SolverError) as error:
        raise UnsupportedError(f"ConvexProgram cannot take the problem: {error}") from error
    return lambda values, call: layer(*values, solver_args={"call": call})


def _is_symmetric(leaf: Any) -> bool:
    return len(leaf.shape) == 2 and bool(leaf.is_symmetric())


def _check_problem(problem: Any, parameters: list[Any], variables: list[Any], cvxpy: Any) -> None:
    if not isinstance(problem, cvxpy.Problem):
        raise InputError(f"ConvexProgram wants a cvxpy.Problem, found a {type(problem).__name__}")
    for listed, own, kind in (
        (parameters, problem.parameters(), cvxpy.Parameter),
        (variables, problem.variables(), cvxpy.Variable),
    ):
        word = kind.__name__.lower()
        ids, known = [getattr(leaf, "id", None) for leaf in listed], {leaf.id for leaf in own}
        for leaf, number in zip(listed, ids, strict=True):
            if not isinstance(leaf, kind) or number not in known:
                raise InputError(f"ConvexProgram: {leaf!s} is listed as a {word}, and the problem has no such {word}")
        if not ids or len(set(ids)) < len(ids):
            raise InputError(f"ConvexProgram wants at least one {word}, each once; found {[str(it) for it in listed]}")
    missing = [leaf.name() for leaf in problem.parameters() if all(leaf is not it for it in parameters)]
    if missing:
        raise InputError(f"ConvexProgram: the problem's parameters {missing} are missing from the list of parameters")
    for leaf in (*problem.parameters(), *problem.variables()):
        odd = [name for name in NOT_TAKEN if leaf.attributes.get(name) not in (None, False)]
        if odd:
            raise UnsupportedError(
                f"ConvexProgram: {leaf.name()} is {', '.join(odd)}, which has no derivative or is misread by "
                "cvxpylayers; use a plain real one (for a diagonal matrix, cvxpy.diag of a vector)"
            )
