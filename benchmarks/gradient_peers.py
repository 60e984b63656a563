"""One adjoint solve, done by bigrad, by its peers and by hand, behind one face.

Each way is a function of a problem and of how exact to be (a relative tolerance, or a number of iterations); it returns
the phases of a :class:`harness.Case`: what comes before the backward pass, and the backward pass, which returns the
gradient. Peers get the exact minimiser for their forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from problems import InnerProblem
from torch import Tensor

Phases = dict[str, Callable[[Any], Any]]
Layer = Callable[[Tensor], Tensor]


def backward_of(layer: Layer, problem: InnerProblem, keep: bool = False) -> Phases:
    """The phases of a layer ``theta -> y``; with ``keep`` one graph is made, and every backward pass is on it."""
    kept: list[tuple[Tensor, Tensor]] = []

    def prepare(_: Any) -> tuple[Tensor, Tensor]:
        if keep and kept:
            return kept[0]
        theta = problem.theta.clone().requires_grad_()
        # A scalar, as in training: a cotangent makes torch itself import half a second of symbolic shapes first.
        loss = (problem.weight * layer(theta)).sum()
        kept.append((loss, theta))
        return loss, theta

    def backward(graph: tuple[Tensor, Tensor]) -> Tensor:
        loss, theta = graph
        return torch.autograd.grad(loss, theta, retain_graph=keep)[0]

    return {"prepare": prepare, "backward": backward}


def in_a_row(phases: Phases, count: int) -> Phases:
    """``count`` backward passes on one graph, as for the rows of a Jacobian or for several losses."""

    def backward(graph: Any) -> Tensor:
        return [phases["backward"](graph) for _ in range(count)][-1]

    return phases | {"backward": backward}


def bigrad_layer(problem: InnerProblem, linear_solver: Any = None, init: Tensor | None = None) -> Layer:
    """bigrad's argmin; the default linear solver where none is given."""
    import bigrad

    rule = bigrad.gradients.Implicit() if linear_solver is None else bigrad.gradients.Implicit(linear_solver)
    start = problem.solution if init is None else init
    return lambda theta: bigrad.argmin(problem.objective, start, theta, gradient=rule)


def bigrad_from_zero(problem: InnerProblem) -> Phases:
    """Everything at its default: where the solver has left a factorisation, the adjoint uses it."""
    return backward_of(bigrad_layer(problem, init=torch.zeros_like(problem.solution)), problem)


def bigrad_cg(problem: InnerProblem, rtol: float | None = None, most: int | None = None) -> Phases:
    """Conjugate gradients."""
    import bigrad

    return backward_of(bigrad_layer(problem, bigrad.linear.CG(rtol=rtol, max_steps=most)), problem)


def bigrad_direct(problem: InnerProblem, keep: bool = False) -> Phases:
    """The Hessian written down and factorised; with ``keep`` it is the second backward pass on a graph."""
    import bigrad

    return backward_of(bigrad_layer(problem, bigrad.linear.Direct()), problem, keep)


def torchopt_layer(problem: InnerProblem, solve: Callable[..., Any] | None = None) -> Layer:
    """TorchOpt's ``custom_root``; its default linear solver where none is given."""
    import torchopt

    rule = torchopt.diff.implicit.custom_root(
        torch.func.grad(problem.objective), argnums=1, **({} if solve is None else {"solve": solve})
    )
    layer = rule(lambda init, theta: problem.solution.clone())
    return lambda theta: layer(problem.solution, theta)


def torchopt_default(problem: InnerProblem, rtol: float | None = None) -> Phases:
    """Conjugate gradients on the normal equations."""
    import torchopt

    solve = None if rtol is None else torchopt.linear_solve.solve_normal_cg(rtol=rtol)
    return backward_of(torchopt_layer(problem, solve), problem)


def torchopt_cg(problem: InnerProblem, rtol: float = 1e-5, most: int | None = None, keep: bool = False) -> Phases:
    """Conjugate gradients."""
    import torchopt

    solve = torchopt.linear_solve.solve_cg(rtol=rtol, maxiter=most)
    return backward_of(torchopt_layer(problem, solve), problem, keep)


def torchopt_inverse(problem: InnerProblem) -> Phases:
    """The Hessian written down."""
    import torchopt

    return backward_of(torchopt_layer(problem, torchopt.linear_solve.solve_inv()), problem)


def hypergrad_cg(problem: InnerProblem, iterations: float) -> Phases:
    """hypergrad's conjugate gradients."""
    from hypergrad.approx_hypergrad import conjugate_gradient

    def inner(y: tuple[Tensor, ...], theta: tuple[Tensor, ...]) -> Tensor:
        return problem.objective(y[0], theta[0])

    def outer(y: tuple[Tensor, ...], theta: tuple[Tensor, ...]) -> Tensor:
        return problem.weight @ y[0] + 0 * theta[0].sum()

    def backward(_: Any) -> Tensor:
        return conjugate_gradient(inner, outer, (problem.solution,), (problem.theta,), int(iterations), 1.0)[0]

    return {"prepare": lambda _: None, "backward": backward}


def boat_cg(problem: InnerProblem, iterations: float) -> Phases:
    """The function that boat-torch's operation CG calls, on a gradient step of the length of one over the curvature."""
    from boat_torch.utils.op_utils import conjugate_gradient

    curvature = torch.linalg.matrix_norm(torch.func.hessian(problem.objective)(problem.solution, problem.theta), 2)
    rate = float(1 / curvature)

    def prepare(_: Any) -> tuple[Tensor, ...]:
        y, theta = problem.solution.clone().requires_grad_(), problem.theta.clone().requires_grad_()
        return y, theta, problem.weight @ y + 0 * theta.sum(), problem.objective(y, theta)

    def step(params: list[Tensor], value: Tensor) -> list[Tensor]:
        slopes = torch.autograd.grad(value, params, create_graph=True)
        return [param - rate * slope for param, slope in zip(params, slopes, strict=True)]

    def backward(graph: tuple[Tensor, ...]) -> Tensor:
        y, theta, outer, inner = graph
        return conjugate_gradient([y], [theta], outer, inner, int(iterations), step, 1e-12)[0]

    return {"prepare": prepare, "backward": backward}


def betty_cg(problem: InnerProblem, iterations: float) -> Phases:
    """The function that Betty's engine calls for ``type="cg"``, at its default scale, on what it asks of a problem."""
    from betty.configs import Config
    from betty.hypergradient.cg import cg

    config = Config(type="cg", cg_iterations=int(iterations))

    def prepare(_: Any) -> tuple[Tensor, Tensor]:
        return problem.solution.clone().requires_grad_(), problem.theta.clone().requires_grad_()

    def backward(leaves: tuple[Tensor, Tensor]) -> Tensor:
        y, theta = leaves
        follower = SimpleNamespace(
            paths=[],
            config=config,
            cur_batch=None,
            training_step_exec=lambda _: problem.objective(y, theta),
            parameters=lambda: [y],
            trainable_parameters=lambda: [y],
        )
        leader = SimpleNamespace(trainable_parameters=lambda: [theta])
        return cg((problem.weight,), follower, leader, sync=False)[0]

    return {"prepare": prepare, "backward": backward}


def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, rtol: float) -> Tensor:
    """The textbook loop, with nothing around it."""
    u, r, p = torch.zeros_like(b), b, b
    rr = r @ r
    limit = rtol**2 * float(rr)
    while float(rr) > limit:
        Ap = product(p)
        alpha = rr / (p @ Ap)
        u, r = u + alpha * p, r - alpha * Ap
        rr, before = r @ r, rr
        p = r + (rr / before) * p
    return u


def bare_graph(problem: InnerProblem, rtol: float) -> Phases:
    """The loop by hand in plain torch; products go through one retained graph of the objective's gradient."""

    def backward(_: Any) -> Tensor:
        y, theta = problem.solution.clone().requires_grad_(), problem.theta.clone().requires_grad_()
        (slope,) = torch.autograd.grad(problem.objective(y, theta), y, create_graph=True)
        u = conjugate_gradients(lambda v: torch.autograd.grad(slope, y, v, retain_graph=True)[0], problem.weight, rtol)
        return torch.autograd.grad(slope, theta, -u)[0]

    return {"prepare": lambda _: None, "backward": backward}


def bare_products(problem: InnerProblem, design: Tensor, rtol: float) -> Phases:
    """The loop by hand on the products of ridge regression, written down by hand."""

    def backward(_: Any) -> Tensor:
        penalty = problem.theta.exp()
        u = conjugate_gradients(lambda v: (design @ v) @ design + penalty * v, problem.weight, rtol)
        return -penalty * problem.solution * u

    return {"prepare": lambda _: None, "backward": backward}


def bare_factor(problem: InnerProblem, design: Tensor) -> Phases:
    """Two triangular solves by hand with the factor of ridge regression's Hessian."""
    penalty = problem.theta.exp()
    factor = torch.linalg.cholesky(design.mT @ design + torch.diag(penalty))

    def backward(_: Any) -> Tensor:
        return -penalty * problem.solution * torch.cholesky_solve(problem.weight[:, None], factor)[:, 0]

    return {"prepare": lambda _: None, "backward": backward}
