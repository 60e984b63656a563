"""bigrad's ArgMin and its implicit gradient as a solver of benchmark_bilevel; ``benchmarks/`` has to be on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from benchopt import BaseSolver
from benchopt.stopping_criterion import SufficientProgressCriterion
from jax_oracle import Value, oracle
from stochastic_methods import Point, implicit


class Solver(BaseSolver):
    """Gradient descent on the value function; full batches, both solves started warm."""

    name = "bigrad-Implicit"
    stopping_criterion = SufficientProgressCriterion(patience=12_800, strategy="callback")  # as its own solvers have
    parameters: ClassVar = {"outer_step": [0.1], "rtol": [1e-5], "eval_freq": [1]}

    def set_objective(
        self,
        f_inner: Callable[..., Any],
        f_outer: Callable[..., Any],
        n_inner_samples: int,
        n_outer_samples: int,
        inner_var0: Any,
        outer_var0: Any,
        f_inner_fb: Callable[..., Any],
        **rest: Any,
    ) -> None:
        """The two losses over samples, the mean of the lower one, and where to start."""
        self.oracle = oracle(f_inner, f_outer, (n_inner_samples, n_outer_samples), (inner_var0, outer_var0))
        self.mean = f_inner_fb
        self.inner_var, self.outer_var = inner_var0, outer_var0
        next(self.points())  # compiles, before the time starts

    @staticmethod
    def get_next(stop_val: int) -> int:
        """Every block of iterations is a point of the curve."""
        return stop_val + 1

    def points(self) -> Iterator[Point]:
        """The iteration."""
        return implicit(self.oracle, lambda y, x: Value.apply(y, x, self.mean), self.outer_step, self.rtol)

    def run(self, callback: Callable[[], bool]) -> None:
        """Iterate as long as benchopt wants to."""
        points = self.points()
        while callback():
            for _ in range(self.eval_freq):
                x, y, _ = next(points)
            self.outer_var, self.inner_var = x.numpy(), y.numpy()

    def get_result(self) -> dict[str, Any]:
        """Where both variables are now."""
        return {"inner_var": self.inner_var, "outer_var": self.outer_var}
