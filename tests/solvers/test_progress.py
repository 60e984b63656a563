"""What a step does with problems that have ended, and with one that led nowhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.solvers import Anderson, FixedPointIteration

from .objectives import D, vector
from .roots import fixed_point, jump


def test_a_step_that_is_taken_back_is_followed_by_a_plain_one_and_a_new_memory() -> None:
    seen: list[Tensor] = []

    def watched(y: Tensor) -> Tensor:
        seen.append(y.clone())
        return jump(y)

    Anderson(max_steps=100).solve(fixed_point(watched), torch.full((3,), 4.0, dtype=D) + vector(3), ())
    size = [float((jump(y) - y).norm()) for y in seen]
    back = next(k for k in range(2, 100) if size[k] > 2 * min(size[:k]))
    best = seen[min(range(back), key=size.__getitem__)]
    plain = seen[back + 1]
    torch.testing.assert_close(plain, jump(best))
    f, g = jump(best) - best, jump(plain) - plain
    gamma = (g @ (g - f)) / ((g - f) @ (g - f))
    torch.testing.assert_close(seen[back + 2], plain + g - gamma * (plain - best + g - f), rtol=1e-9, atol=1e-9)


def test_a_step_that_is_lost_in_rounding_is_the_last_one() -> None:
    seen: list[Tensor] = []

    def watched(y: Tensor) -> Tensor:
        seen.append(y.clone())
        return torch.cos(y)

    solver = FixedPointIteration(rtol=0.0, atol=0.0, damping=0.1)
    _, certificate = solver.solve(fixed_point(watched), torch.zeros(1, dtype=D), ())
    last = int(certificate.steps)
    assert torch.equal(seen[last], seen[last - 1])
    assert not torch.equal(seen[last - 1], seen[last - 2])


@pytest.mark.parametrize("fails", [-1.0, 1.001])  # goes to and fro, and away
def test_a_problem_that_fails_keeps_its_best_point_while_others_go_on(fails: float) -> None:
    slope = torch.tensor([[fails], [0.99], [0.5]], dtype=D)
    solver, start = FixedPointIteration(), torch.zeros(3, 2, dtype=D)
    y, certificate = solver.solve(fixed_point(lambda y: slope * y + 1, 1), start, ())
    for k in range(3):
        alone, one = solver.solve(fixed_point(lambda y, k=k: slope[k] * y + 1), start[k], ())
        assert torch.equal(y[k], alone)
        assert certificate.steps[k] == one.steps
        assert certificate.status[k] == one.status
    assert certificate.failed.tolist() == [True, False, False]
    assert torch.equal(y[0], start[0])
    assert int(certificate.steps[0]) == 500 < int(certificate.steps[1])
