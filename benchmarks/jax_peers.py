"""Adjoint solves of the ridge problem by jaxopt and optimistix, served to another process line by line.

Started with the interpreter of the jax environment and a file of arrays. A request is a JSON line with the peer and the
relative tolerance; the answer is a JSON line with the seconds of the backward pass and the gradient. The first request
of a kind compiles, and its time is to be thrown away.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax  # noqa: E402  # after its environment is set

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import jaxopt  # noqa: E402
import lineax  # noqa: E402
import numpy as np  # noqa: E402
import optimistix  # noqa: E402

Array = jax.Array
Layer = Callable[[Array], Array]


def layer(peer: str, rtol: float, arrays: dict[str, Array]) -> Layer:
    """``theta -> y`` of one of the peers, which is given the solution."""
    design, targets, solution = arrays["design"], arrays["targets"], arrays["solution"]

    def objective(y: Array, theta: Array) -> Array:
        return ((design @ y - targets) ** 2).sum() / 2 + (jnp.exp(theta) * y**2).sum() / 2

    if peer.startswith("jaxopt"):
        solvers = {
            "jaxopt cg": lambda matvec, b: jaxopt.linear_solve.solve_cg(matvec, b, tol=rtol, maxiter=10 * b.size),
            "jaxopt default": jaxopt.linear_solve.solve_normal_cg,
        }
        rule = jaxopt.implicit_diff.custom_root(jax.grad(objective), solve=solvers[peer])
        solve = rule(lambda init, theta: solution)
        return lambda theta: solve(solution, theta)
    adjoint = optimistix.ImplicitAdjoint(linear_solver=lineax.CG(rtol=rtol, atol=0.0))

    def minimise(theta: Array) -> Array:
        return optimistix.minimise(
            objective,
            optimistix.BFGS(rtol=1e-8, atol=1e-8),
            solution,
            args=theta,
            adjoint=adjoint,
            tags=frozenset({lineax.positive_semidefinite_tag}),
            throw=False,
        ).value

    return minimise


def main() -> None:
    """Answer requests until the input ends."""
    arrays = {name: jnp.asarray(value) for name, value in np.load(sys.argv[1]).items()}
    backward = jax.jit(lambda pullback, weight: pullback(weight)[0])
    forwards: dict[tuple[str, float], Callable] = {}
    for line in sys.stdin:
        request = json.loads(line)
        kind = request["peer"], request["rtol"]
        if kind not in forwards:
            solve = layer(*kind, arrays)
            forwards[kind] = jax.jit(lambda theta, solve=solve: jax.vjp(solve, theta))
        try:
            _, pullback = forwards[kind](arrays["theta"])
            jax.block_until_ready(pullback)
            start = time.perf_counter()
            gradient = backward(pullback, arrays["weight"]).block_until_ready()
            answer = {"seconds": time.perf_counter() - start, "found": np.asarray(gradient).tolist()}
        except Exception as error:  # noqa: BLE001  # a peer may raise anything: that is a result
            answer = {"failure": f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
