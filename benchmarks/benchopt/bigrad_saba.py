"""SABA in torch, as a solver of benchmark_bilevel; ``benchmarks/`` has to be on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from benchopt import BaseSolver
from benchopt.stopping_criterion import SufficientProgressCriterion
from jax_oracle import oracle
from stochastic_methods import Point, single_loop


class Solver(BaseSolver):
    """Single loop with reduced variance: lower variable, adjoint and upper variable move at once.

    Source: A framework for bilevel optimization that enables stochastic and global variance reduction algorithms
    (Dagréou, Ablin, Vaiter, Moreau, 2022).
    """

    name = "bigrad-SABA"
    stopping_criterion = SufficientProgressCriterion(patience=12_800, strategy="callback")  # as its own solvers have
    parameters: ClassVar = {
        "step_size": [0.1],
        "outer_ratio": [1.0],
        "batch_size": [64],
        "eval_freq": [128],
        "random_state": [1],
    }

    def set_objective(
        self,
        f_inner: Callable[..., Any],
        f_outer: Callable[..., Any],
        n_inner_samples: int,
        n_outer_samples: int,
        inner_var0: Any,
        outer_var0: Any,
        **rest: Any,
    ) -> None:
        """The two losses over samples, and where to start."""
        self.oracle = oracle(f_inner, f_outer, (n_inner_samples, n_outer_samples), (inner_var0, outer_var0))
        self.outer_var = outer_var0
        self.inner_var = inner_var0
        next(self.points())  # compiles, before the time starts

    @staticmethod
    def get_next(stop_val: int) -> int:
        """Every block of iterations is a point of the curve."""
        return stop_val + 1

    def points(self) -> Iterator[Point]:
        """The iteration."""
        generator = torch.Generator().manual_seed(self.random_state)
        steps = self.step_size, self.step_size / self.outer_ratio
        return single_loop(self.oracle, *steps, generator, reduced=True, batch=self.batch_size)

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
