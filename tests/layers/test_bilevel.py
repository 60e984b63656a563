"""The bilevel layer as a citizen: known answers, certificates, failures, saving, repr, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bigrad
from bigrad import InputError, SolveError, SolveWarning, Status, UnsupportedError, errors
from bigrad.gradients import WarmStart
from bigrad.layers import Bilevel
from bigrad.solvers import LBFGS, Stackelberg

from .cases import D, vector
from .two_levels import ANCHORED, CUT_OFF, PROGRAMS, TIED, TIGHT, Program, anchored_follower, anchored_leader, joined

ONE = torch.zeros(1, dtype=D)
PAIR = ONE, ONE


def profit(own: Tensor, other: Tensor, cost: Tensor) -> Tensor:
    return ((100 - own - other - cost) * own).sum()


def test_the_duopoly_is_led() -> None:
    layer = Bilevel(lambda x, y, c: -profit(x, y, c[0]), lambda y, x, c: -profit(y, x, c[1]), PAIR)
    cost = torch.tensor([5.0, 2.0], dtype=D, requires_grad=True)
    x, y = layer(cost)
    torch.testing.assert_close(joined((x, y)), torch.tensor([46.0, 26.0], dtype=D), rtol=1e-12, atol=0)
    # Two who answer each other (Cournot, Nash) end elsewhere; the profit of the leader shows who is right.
    nash = torch.tensor([(100 - 2 * 5 + 2) / 3, (100 - 2 * 2 + 5) / 3], dtype=D)
    assert (joined((x, y)) - nash).abs().min() > 5
    assert profit(x, y, cost[0]) > profit(nash[0], nash[1], cost[0])
    found = torch.stack([torch.autograd.grad(part.sum(), cost, retain_graph=True)[0] for part in (x, y)])
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0.5], [0.5, -0.75]], dtype=D))


def test_small_programs_with_known_answers() -> None:
    x, y = Bilevel(
        lambda x, y: 0.5 * (y - 1).square().sum() + x.square().sum() / 8, lambda y, x: (y**2 - x * y).sum(), PAIR
    )()
    torch.testing.assert_close(joined((x, y)), torch.tensor([1.0, 0.5], dtype=D), rtol=1e-12, atol=0)
    x, y = ANCHORED.layer()(torch.tensor([1.0, 0.0, 0.0], dtype=D))
    torch.testing.assert_close(x, torch.tensor([1 / 3, -2 / 9], dtype=D), rtol=1e-12, atol=0)
    torch.testing.assert_close(y, torch.tensor([2 / 9, -1 / 9], dtype=D), rtol=1e-12, atol=0)


def test_a_follower_with_many_minima_stays_on_its_branch() -> None:
    def leader(x: Tensor, y: Tensor, a: Tensor) -> Tensor:
        return (x - a).square().sum() + (y - a - 2).square().sum()

    def follower(y: Tensor, x: Tensor, a: Tensor) -> Tensor:
        return (x + y - 2).sin().sum()

    a = torch.tensor(2.0, dtype=D, requires_grad=True)
    for turn in (0, 1):
        begin = torch.tensor([2.0], dtype=D), torch.tensor([0.3 - math.pi / 2 + 2 * math.pi * turn], dtype=D)
        x, y = Bilevel(leader, follower, begin)(a)
        # x + y = 2 - pi/2 + 2 pi k, halfway between the two wishes
        k = round(float((x + y).detach() - 2 + math.pi / 2) / (2 * math.pi))
        truth = torch.tensor([math.pi * (k - 0.25), 2 + math.pi * (k - 0.25)], dtype=D)
        torch.testing.assert_close(joined((x, y)).detach(), truth, rtol=1e-10, atol=1e-10)
        assert k == turn
    (slope,) = torch.autograd.grad(x.sum(), a)
    assert abs(float(slope)) < 1e-10


@pytest.mark.parametrize("program", PROGRAMS, ids=repr)
def test_the_answers_are_those_of_the_formulas(program: Program) -> None:
    layer = program.layer(solver=Stackelberg())
    torch.testing.assert_close(layer(program.z), program.formula(program.z), rtol=1e-9, atol=1e-9)
    certificate = layer.certificate
    assert certificate is not None
    assert certificate.what == "bilevel program"
    assert certificate.status == Status.CONVERGED
    assert certificate.stationarity <= certificate.tolerance
    assert certificate.steps > 0
    assert (certificate.feasibility is None) == (certificate.margin is None) == (
        program is ANCHORED
    ) or program.name == "tied"


@pytest.mark.parametrize("program", PROGRAMS, ids=repr)
@pytest.mark.parametrize("scales", [(1e4, 1.0), (1e-4, 1e4), (1e4, 1e-4)])
def test_the_size_of_an_objective_changes_no_answer(program: Program, scales: tuple[float, float]) -> None:
    layer = Bilevel(
        lambda x, y, z: scales[0] * program.leader(x, y, z),
        lambda y, x, z: scales[1] * program.follower(y, x, z),
        program.init,
        **program.constraints,  # type: ignore[arg-type]
    )
    z = program.z.clone().requires_grad_()
    answer = joined(layer(z))
    truth = joined(program.formula(program.z))
    torch.testing.assert_close(answer.detach(), truth, rtol=1e-10, atol=1e-10)
    weight = vector(len(truth), seed=1)
    (found,) = torch.autograd.grad(weight @ answer, z)
    formula = torch.func.grad(lambda z: weight @ joined(program.formula(z)))(program.z)
    torch.testing.assert_close(found, formula, rtol=1e-8, atol=1e-8)


def test_a_start_at_the_answer_takes_no_step() -> None:
    layer = ANCHORED.layer(init=ANCHORED.formula(ANCHORED.z))
    x, y = layer(ANCHORED.z)
    assert layer.certificate is not None
    assert layer.certificate.steps == 0
    torch.testing.assert_close((x, y), ANCHORED.formula(ANCHORED.z), rtol=1e-12, atol=1e-13)


def around(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return (x - z).square().sum() + y.square().sum()


def behind(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return (y - x).square().sum()


@pytest.mark.parametrize(
    ("leader", "follower", "kind"),
    [
        (lambda x, y, z: (x + y).sum(), behind, SolveError),
        (lambda x, y, z: (y**2 - 2 * x**2).sum(), behind, SolveError),
        (lambda x, y, z: y.square().sum(), lambda y, x, z: (y - z).square().sum(), errors.Singular),
        (around, lambda y, x, z: x.square().sum() + 0 * y.sum(), errors.Singular),
        (around, lambda y, x, z: (y.sum() + x).square().sum() * 0 + (y * x).sum(), SolveError),
        (around, lambda y, x, z: -(y - x).square().sum(), errors.Indefinite),
        (
            lambda x, y, z: -(x - z).square().sum(),
            lambda y, x, z: (y - z).square().sum() + 0 * x.sum(),
            errors.Indefinite,
        ),
        (around, lambda y, x, z: (y - x).square().sum() * z.log().sum(), errors.Diverged),
    ],
    ids=["unbounded", "hollow", "idle leader", "idle follower", "linear", "maximiser", "maximum", "NaN"],
)
def test_failures_are_typed(
    leader: Callable[..., Tensor], follower: Callable[..., Tensor], kind: type[SolveError]
) -> None:
    layer = Bilevel(leader, follower, (ONE + 0.3, ONE - 0.2))
    with pytest.raises(kind, match=r"bilevel program .*Remedy"):
        layer(torch.tensor([-0.5], dtype=D))


def test_several_minimisers_of_the_follower_are_told() -> None:
    layer = Bilevel(around, lambda y, x, z: (y.sum() - x).square().sum(), (ONE, torch.zeros(2, dtype=D)))
    with pytest.raises(errors.Singular, match="answer is not unique"):
        layer(torch.ones(1, dtype=D))


def test_a_saddle_is_left_and_never_returned() -> None:
    def wells(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return (y**4 / 4 - y**2 / 2 - x * y).sum()

    x, y = Bilevel(lambda x, y, z: (x - z).square().sum() + 0.1 * y.square().sum(), wells, PAIR)(ONE + 0.1)
    assert 3 * y**2 > 1  # a minimum of the follower, though the start was its maximum
    x, y = Bilevel(lambda x, y, z: (x.square() - 1).square().sum() + 0.05 * (y * z).sum(), behind, PAIR)(ONE + 1)
    assert abs(abs(float(x)) - 1) < 0.05


def test_nan_inputs_are_told() -> None:
    for program in PROGRAMS:
        with pytest.raises(errors.Diverged, match="NaN"):
            program.layer()(torch.full_like(program.z, torch.nan))


@pytest.mark.parametrize("max_steps", [0, 1, 3])
def test_running_out_of_steps_is_told(max_steps: int) -> None:
    layer = CUT_OFF.layer(solver=Stackelberg(max_steps=max_steps))
    with pytest.raises(errors.NotConverged, match="max_steps") as caught:
        layer(CUT_OFF.z)
    assert caught.value.certificate.steps <= max_steps + 1


def test_the_three_ways_to_fail() -> None:
    broke = Stackelberg(max_steps=1)
    with pytest.warns(SolveWarning, match="used all its steps"):
        warned = CUT_OFF.layer(solver=broke, on_failure="warn")(CUT_OFF.z)
    silent = CUT_OFF.layer(solver=broke, on_failure="ignore")
    assert torch.equal(joined(silent(CUT_OFF.z)), joined(warned))
    assert silent.certificate is not None
    assert bool(silent.certificate.failed)


class Aim(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.target = nn.Linear(size, size, dtype=D)

    def forward(self, own: Tensor, other: Tensor, z: Tensor) -> Tensor:
        return (own - self.target(z)).square().sum(-1) + 0.5 * (own - other).square().sum(-1)


def test_levels_that_are_modules_are_trained() -> None:
    torch.manual_seed(0)
    layer = Bilevel(Aim(2), Aim(2), (torch.zeros(2, dtype=D), torch.zeros(2, dtype=D)))
    assert len(list(layer.parameters())) == 4
    assert all("leader" in name or "follower" in name for name in layer.state_dict())
    optimiser, losses = torch.optim.SGD(layer.parameters(), lr=0.05), []
    z, wanted = vector(3, 2), vector(3, 2, seed=1)
    for _ in range(5):
        optimiser.zero_grad()
        x, y = layer(z)
        loss = (x - wanted).square().mean() + (y + wanted).square().mean()
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_layer_travels_with_its_certificate(travel: Callable[[Any], Any]) -> None:
    layer = Bilevel(anchored_leader, anchored_follower, ANCHORED.init, solver=TIGHT)
    answer = layer(ANCHORED.z)
    arrived = travel(layer)
    assert arrived.certificate.stationarity == layer.certificate.stationarity  # type: ignore[union-attr]
    assert torch.equal(joined(arrived(ANCHORED.z)), joined(answer))
    assert repr(arrived) == repr(layer)
    assert len(layer.state_dict()) == 0


def test_repr_shows_the_levels_and_the_settings() -> None:
    layer = Bilevel(
        anchored_leader, Aim(2), ANCHORED.init, follower_constraints=bigrad.Constraints(lower=0.0), on_failure="warn"
    )
    for part in (
        "leader=anchored_leader",
        "(follower): Aim",
        "lower=0.0",
        "Stackelberg(rtol=None",
        "on_failure='warn'",
    ):
        assert part in repr(layer)


def test_the_function_and_the_layer_are_one() -> None:
    found = bigrad.bilevel(TIED.leader, TIED.follower, TIED.init, TIED.z, solver=TIGHT, **TIED.constraints)  # type: ignore[arg-type]
    assert torch.equal(joined(found), joined(TIED.layer()(TIED.z)))


def test_a_warm_start_of_the_function() -> None:
    warm = WarmStart()
    first = bigrad.bilevel(anchored_leader, anchored_follower, ANCHORED.init, ANCHORED.z, warm_start=warm)
    assert warm.solution is not None
    torch.testing.assert_close(warm.solution[:4], joined(first))
    layer = ANCHORED.layer()
    layer(ANCHORED.z, warm_start=warm)
    assert layer.certificate is not None
    assert layer.certificate.steps <= 1


def test_a_users_own_solver() -> None:
    def by_formula(init: tuple[Tensor, Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
        return ANCHORED.formula(z)

    z = ANCHORED.z.clone().requires_grad_()
    layer = ANCHORED.layer(solver=by_formula, on_failure="ignore")
    torch.testing.assert_close(layer(z), ANCHORED.formula(z))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bilevel(3, behind, PAIR), "leader"),  # type: ignore[arg-type]
        (lambda: Bilevel(around, behind, PAIR, on_failure="shout"), "on_failure"),  # type: ignore[arg-type]
        (lambda: Bilevel(around, behind, ONE)(ONE), "pair"),
        (lambda: Bilevel(around, behind, PAIR, solver=3)(ONE), "solver"),  # type: ignore[arg-type]
        (lambda: Bilevel(lambda x, y, z: 3.0, behind, PAIR)(ONE), "tensor"),  # type: ignore[arg-type,return-value]
        (lambda: Bilevel(around, lambda y, x, z: (y - x).square(), PAIR)(ONE), "one number per independent program"),
        (lambda: Bilevel(around, behind, PAIR)(torch.zeros(1)), "dtype"),
        (lambda: Bilevel(lambda x, y, z: z.sum(), lambda y, x, z: z.sum(), PAIR)(ONE), "depend"),
        (lambda: Stackelberg(rtol=-1.0), "rtol"),
        (lambda: Stackelberg(max_steps=-1), "max_steps"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_solvers_and_problems_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        Bilevel(around, behind, PAIR, solver=LBFGS())(ONE)
    with pytest.raises(UnsupportedError, match="two levels"):
        bigrad.argmin(lambda y: y.square().sum(), ONE, solver=Stackelberg())
    big = torch.zeros(2000, dtype=D)
    with pytest.raises(UnsupportedError, match="unknowns"):
        Bilevel(around, behind, (big, big))(big)
