"""The equilibria of ``fixed_points.py`` by jaxopt and optimistix, served line by line; see ``served.py``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax  # noqa: E402  # after its environment is set

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import jaxopt  # noqa: E402
import lineax  # noqa: E402
import numpy as np  # noqa: E402
import optimistix  # noqa: E402

Array = jax.Array


def solver(peer: str, tolerance: float, most: int) -> Callable[[Array, Array], Array]:
    """``(x, W) -> y`` of one problem by one of the peers."""
    package, name = peer.split()
    if package == "jaxopt":

        def adjoint(matvec: Callable[[Array], Array], b: Array) -> Array:
            return jaxopt.linear_solve.solve_gmres(matvec, b, tol=tolerance, maxiter=most)

        method = getattr(jaxopt, name)(
            lambda y, x, W: jnp.tanh(W @ y + x), maxiter=most, tol=tolerance, implicit_diff_solve=adjoint
        )
        return lambda x, W: method.run(jnp.zeros_like(x), x, W).params
    rule = optimistix.ImplicitAdjoint(linear_solver=lineax.GMRES(rtol=tolerance, atol=tolerance))

    def solve(x: Array, W: Array) -> Array:
        return optimistix.fixed_point(
            lambda y, given: jnp.tanh(given[1] @ y + given[0]),
            getattr(optimistix, name)(rtol=tolerance, atol=tolerance),
            jnp.zeros_like(x),
            args=(x, W),
            adjoint=rule,
            max_steps=most,
            throw=False,
        ).value

    return solve


def main() -> None:
    """Answer requests until the input ends; a kind is compiled before its time is taken."""
    arrays = {name: jnp.asarray(value) for name, value in np.load(sys.argv[1]).items()}
    gradients: dict[str, Callable] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = json.dumps(request)
        try:
            if key not in gradients:
                solve = jax.vmap(solver(**request), in_axes=(0, None))
                gradients[key] = jax.jit(
                    jax.grad(lambda x, W, solve=solve: (solve(x, W) * arrays["weight"]).sum(), (0, 1))
                )
                jax.block_until_ready(gradients[key](arrays["x"], arrays["W"]))
            start = time.perf_counter()
            found = jax.block_until_ready(gradients[key](arrays["x"], arrays["W"]))
            answer = {"seconds": time.perf_counter() - start, "found": [np.asarray(part).tolist() for part in found]}
        except Exception as error:  # noqa: BLE001  # a peer may raise anything: that is a result
            answer = {"failure": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
