"""The optimizers of torch as solvers: each problem until it is solved, and nothing of the user's touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bigrad import InputError, Status, UnsupportedError
from bigrad.equation import Equation, Mapping
from bigrad.solvers import GradientDescent, TorchOptimizer

from .objectives import D, honest, minimise, quadratic, rosenbrock, smooth_maximum, vector


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.3}),
        (torch.optim.Adam, {"lr": 0.1}),
        (torch.optim.RMSprop, {"lr": 0.01}),
        (torch.optim.Adagrad, {"lr": 0.5}),
        (torch.optim.NAdam, {"lr": 0.1}),
        (torch.optim.LBFGS, {"line_search_fn": "strong_wolfe", "tolerance_grad": 0.0, "tolerance_change": 0.0}),
    ],
)
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_quadratic(factory: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    function, best = quadratic(10.0, 4)
    status, y = honest(TorchOptimizer(factory, rtol=1e-5, atol=1e-6, **options), function, torch.zeros(4, dtype=dtype))
    assert status == Status.CONVERGED
    torch.testing.assert_close(y.to(D), best, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("function", [rosenbrock, smooth_maximum])
def test_a_factory_of_ones_own_with_closures(function: Any) -> None:
    def factory(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(
            parameters, line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=0.0, max_iter=50
        )

    status, _ = honest(TorchOptimizer(factory), function, torch.tensor([-1.2, 1.0], dtype=D))
    assert status == Status.CONVERGED


def test_it_is_the_optimizer_of_torch() -> None:
    function, _ = quadratic(10.0, 4)
    start = vector(4)
    leaf = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([leaf], lr=0.05)
    for _ in range(7):
        optimizer.zero_grad()
        function(leaf).backward()
        optimizer.step()
    y, certificate = minimise(TorchOptimizer(torch.optim.Adam, lr=0.05, max_steps=7), function, start)
    torch.testing.assert_close(y, leaf.detach(), rtol=1e-12, atol=0)
    assert Status(int(certificate.status)) == Status.MAX_STEPS
    y, _ = minimise(TorchOptimizer(torch.optim.SGD, lr=0.05, max_steps=7), function, start)
    torch.testing.assert_close(y, minimise(GradientDescent(0.05, max_steps=7), function, start)[0])


def test_one_evaluation_a_step() -> None:
    calls = 0

    def counted(y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (y**2).sum(-1)

    _, certificate = minimise(TorchOptimizer(torch.optim.SGD, lr=0.2), counted, vector(3))
    assert calls == int(certificate.steps) + 1


@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.Adam])
def test_a_batch_is_a_loop_and_solved_problems_are_frozen(factory: Any) -> None:
    bend = torch.tensor([1.0, 0.3, 2.0], dtype=D)
    start = vector(3, 2, seed=4)
    start[2] = 1.0  # solved where it starts
    solver = TorchOptimizer(factory, lr=0.2, **({"momentum": 0.5} if factory is torch.optim.SGD else {}))
    seen: list[Tensor] = []

    def function(y: Tensor, bend: Tensor = bend) -> Tensor:
        seen.append(y.detach().clone())
        return bend * ((y - 1) ** 2).sum(-1)

    y, certificate = minimise(solver, function, start, 1)
    assert not certificate.failed.any()
    assert certificate.steps[2] == 0
    assert all(torch.equal(point[2], start[2]) for point in seen)
    for k in range(3):
        alone, one = minimise(solver, lambda y, k=k: function(y, bend[k]), start[k])
        assert certificate.steps[k] == one.steps
        torch.testing.assert_close(y[k], alone, rtol=1e-12, atol=1e-12)


class Twice(torch.optim.Adam):
    """Looks at the objective again after its step."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        closure()
        return loss


def test_a_solved_problem_is_put_back_after_a_step() -> None:
    seen: list[Tensor] = []

    def function(y: Tensor) -> Tensor:
        seen.append(y.detach().clone())
        return torch.tensor([1.0, 0.01], dtype=D) * ((y - 1) ** 2).sum(-1)

    solver = TorchOptimizer(Twice, lr=0.1, atol=0.1, rtol=0.0, max_steps=60)
    y, certificate = minimise(solver, function, torch.tensor([[0.0], [-40.0]], dtype=D), 1)
    solved = 2 * int(certificate.steps[0])
    assert 0 < solved < 100
    # Within a step the optimizer may move what it likes, by its own momentum: not from step to step.
    drift = max(float((point[0] - y[0]).norm()) for point in seen[solved + 1 :])
    assert 0 < drift < 0.2


def test_a_failing_problem_leaves_its_neighbours_alone() -> None:
    weight = torch.tensor([1.0, torch.nan, -1.0], dtype=D)
    for factory, options in ((torch.optim.Adam, {"lr": 0.1}), (torch.optim.SGD, {"lr": 0.1})):
        solver = TorchOptimizer(factory, max_steps=700, **options)
        y, certificate = minimise(solver, lambda y: weight * ((y - 3) ** 2).sum(-1), vector(3, 2), 1)
        assert certificate.failed.tolist() == [False, True, True]
        assert int(certificate.status[1]) == Status.NON_FINITE
        torch.testing.assert_close(y[0], torch.full((2,), 3.0, dtype=D))


def test_an_optimizer_that_has_stopped_moving_is_given_up() -> None:
    solver = TorchOptimizer(torch.optim.LBFGS, tolerance_grad=1e-2)
    _, certificate = minimise(solver, rosenbrock, torch.tensor([-1.2, 1.0], dtype=D))
    assert Status(int(certificate.status)) == Status.STALLED
    assert int(certificate.steps) <= 300
    biased = TorchOptimizer(torch.optim.SGD, lr=0.3, weight_decay=0.1)  # rests where its own objective does
    _, certificate = minimise(biased, lambda y: ((y - 1) ** 2).sum(-1), torch.zeros(2, dtype=D))
    assert Status(int(certificate.status)) == Status.STALLED


def test_the_edges_of_what_can_be_asked() -> None:
    y, certificate = minimise(TorchOptimizer(torch.optim.Adam, max_steps=0), rosenbrock, torch.zeros(2, dtype=D))
    assert Status(int(certificate.status)) == Status.MAX_STEPS
    assert torch.equal(y, torch.zeros(2, dtype=D))
    y, certificate = minimise(TorchOptimizer(torch.optim.Adam), lambda y: (y**2).sum(-1), torch.zeros(0, 2), 1)
    assert y.shape == (0, 2)


@pytest.mark.parametrize("problem", [Equation(torch.sin, 0), Mapping(torch.cos, 0)])
def test_a_root_has_no_objective(problem: Equation) -> None:
    with pytest.raises(UnsupportedError, match="Newton or Anderson"):
        TorchOptimizer(torch.optim.Adam).solve(problem, torch.ones(2), ())


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="rtol is -1"):
        TorchOptimizer(torch.optim.Adam, rtol=-1.0)
    with pytest.raises(InputError, match="factory is 3"):
        TorchOptimizer(3)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InputError, match="factory returned"):
        minimise(TorchOptimizer(lambda parameters: parameters[0]), rosenbrock, torch.ones(2))  # type: ignore[arg-type, return-value]  # on purpose


def test_what_it_says_of_itself() -> None:
    assert repr(TorchOptimizer(torch.optim.Adam, lr=0.1)) == "TorchOptimizer(Adam, lr=0.1)"
    assert repr(TorchOptimizer(torch.optim.SGD, rtol=0.1, lr=1.0)) == "TorchOptimizer(SGD, rtol=0.1, lr=1.0)"
    assert TorchOptimizer(torch.optim.SGD, lr=1.0) != TorchOptimizer(torch.optim.SGD, lr=2.0)
