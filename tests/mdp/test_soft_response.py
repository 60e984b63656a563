"""SoftResponse against SoftBellman's hyper-gradient, all segments of small MDPs enumerated."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from bigrad import InputError, UnsupportedError
from bigrad.layers import SoftResponse
from bigrad.mdp import LeastSquaresCritic, ResponseEstimator, Rollouts, Segments, Trace
from bigrad.problems import TabularMDP, chain_mdp, random_mdp

from .enumeration import Enumeration, TableReward

D = torch.float64


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def response(everything: Enumeration, x: Tensor, weight: Tensor, **settings: object) -> Tensor:
    """The response gradient as a user of the layer gets it."""
    policy = everything.policy(x).detach()
    segments = everything.segments(policy, int(settings.pop("rollouts", 60)))  # type: ignore[call-overload]
    mdp = everything.mdp
    layer = SoftResponse(TableReward(mdp, x), temperature=mdp.temperature, discount=mdp.discount, **settings)
    logp = layer(segments)
    assert torch.equal(logp.detach(), segments.log_prob)
    (weight[:, None] * logp).sum().backward()
    return layer.reward_model.x.grad


@pytest.fixture(params=["random", "terminal", "chain"])
def case(request: pytest.FixtureRequest) -> tuple[Enumeration, Tensor]:
    generator = torch.Generator().manual_seed(3)
    if request.param == "chain":
        mdp = chain_mdp(generator, states=4, discount=0.6)
    else:
        mdp = random_mdp(generator, states=3, discount=0.6, terminal=request.param == "terminal")
    return Enumeration.of(mdp, 3), torch.randn(4, generator=generator, dtype=D)


def test_the_reference_itself_agrees_with_finite_differences(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    direct, indirect, _ = everything.split(x)
    difference = torch.stack(
        [(everything.objective(x + h) - everything.objective(x - h)) / 2e-5 for h in 1e-5 * torch.eye(4, dtype=D)]
    )
    assert relative(direct + indirect, difference) < 1e-6


def test_independent_rollouts_are_exact(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, truth, weight = everything.split(x)
    assert relative(response(everything, x, weight), truth) < 1e-6


def test_a_baseline_changes_nothing_for_independent_rollouts(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, truth, weight = everything.split(x)
    p = everything.probability(everything.policy(x)).detach()
    if p.sum() < 1 - 1e-9:
        pytest.skip("which segments reach their full length depends on the policy: no constant is a baseline")
    assert relative(response(everything, x, weight - p * weight.sum()), truth) < 1e-6


def test_the_one_step_shortcut_has_its_known_bias_and_more_steps_lose_it(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, truth, weight = everything.split(x)
    mdp = everything.mdp
    one_step = response(everything, x, weight, horizon=1)
    free = x.clone().requires_grad_()
    table, policy = mdp.reward(free), everything.policy(x).detach()
    shortcut = (table - (policy * table).sum(-1, keepdim=True))[everything.states, everything.actions] / mdp.temperature
    (closed_form,) = torch.autograd.grad((weight[:, None] * shortcut).sum(), free)
    assert relative(one_step, closed_form) < 1e-10
    errors = [relative(response(everything, x, weight, horizon=steps), truth) for steps in (1, 2, 5, 20)]
    assert errors[0] > 0.02
    assert errors[2] < errors[0]
    assert errors[3] < 1e-3 * errors[0]


def test_the_one_step_shortcut_sees_nothing_of_a_state_reward(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    everything.mdp.design.copy_(everything.mdp.design[:, :1].expand_as(everything.mdp.design))
    _, truth, weight = everything.split(x)
    assert truth.norm() > 1e-4
    assert response(everything, x, weight, horizon=1).norm() < 1e-12
    assert relative(response(everything, x, weight), truth) < 1e-6


def test_the_one_step_shortcut_needs_no_rollouts_after_the_action(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, _, weight = everything.split(x)
    policy = everything.policy(x).detach()
    full = everything.segments(policy, 1)
    segments = Segments(full.observation, full.action, full.log_prob, after_state=full.after_state)
    mdp = everything.mdp
    layer = SoftResponse(TableReward(mdp, x), temperature=mdp.temperature, discount=mdp.discount, horizon=1)
    (weight[:, None] * layer(segments)).sum().backward()
    assert relative(layer.reward_model.x.grad, response(everything, x, weight, horizon=1)) < 1e-12


def critic(everything: Enumeration, policy: Tensor, features: Tensor) -> LeastSquaresCritic:
    """A critic on every (s, a) once; ``features`` is ``(S, A, d)``."""
    mdp = everything.mdp
    count, choices, size = features.shape
    expected = torch.einsum("sa,sad->sd", policy, features)
    s, a = (g.reshape(-1) for g in torch.meshgrid(torch.arange(count), torch.arange(choices), indexing="ij"))
    following = (mdp.transition @ expected).reshape(-1, size)
    own = features[everything.states, everything.actions] - expected[everything.states]
    return LeastSquaresCritic.fit(s, a, features.reshape(-1, size), following, own, mdp.discount, ridge=0.0)


def test_the_least_squares_critic_with_a_full_table_is_exact(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, truth, weight = everything.split(x)
    count, choices = everything.mdp.design.shape[:2]
    table = torch.eye(count * choices, dtype=D).reshape(count, choices, -1)
    estimator = critic(everything, everything.policy(x).detach(), table)
    assert estimator.approximate
    assert relative(response(everything, x, weight, estimator=estimator), truth) < 1e-6


def test_the_least_squares_critic_with_poor_features_is_biased(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, truth, weight = everything.split(x)
    count, choices = everything.mdp.design.shape[:2]
    poor = torch.randn(count, choices, 2, generator=torch.Generator().manual_seed(0), dtype=D)
    estimator = critic(everything, everything.policy(x).detach(), poor)
    assert relative(response(everything, x, weight, estimator=estimator), truth) > 0.05


class Path:
    """Every path of an MDP whose episodes last four steps: a segment of two, and its continuation."""

    def __init__(self, seed: int = 9) -> None:
        generator = torch.Generator().manual_seed(seed)
        # Two states a layer; each layer leads to the next, and the last one ends the episode.
        transition = torch.zeros(8, 2, 8, dtype=D)
        for layer in range(3):
            chance = torch.rand(2, 2, 2, generator=generator, dtype=D)
            chance = chance / chance.sum(-1, keepdim=True)
            transition[2 * layer : 2 * layer + 2, :, 2 * layer + 2 : 2 * layer + 4] = chance
        start = torch.zeros(8, dtype=D)
        start[:2] = torch.tensor([0.3, 0.7])
        design = torch.randn(8, 2, 4, generator=generator, dtype=D)
        self.mdp = TabularMDP(transition, start, 0.95, 0.5, design)
        self.x = torch.randn(4, generator=generator, dtype=D)
        self.everything = Enumeration.of(self.mdp, 4)
        self.policy = self.everything.policy(self.x).detach()
        every = self.everything.probability(self.policy)
        possible = every > 0
        self.everything.states, self.everything.actions = (
            self.everything.states[possible],
            self.everything.actions[possible],
        )
        self.chance = every[possible]
        # The loss looks at the first two steps only.
        states, actions = self.everything.states, self.everything.actions
        self.loss = torch.randn(8, 2, 8, 2, generator=generator, dtype=D)[
            states[:, 0], actions[:, 0], states[:, 1], actions[:, 1]
        ]
        pasts = [states[:, 0], states[:, 0] * 2 + actions[:, 0]]
        pasts += [pasts[1] * 8 + states[:, 1], (pasts[1] * 8 + states[:, 1]) * 2 + actions[:, 1]]
        means = [self.expected(past) for past in pasts]
        self.advantage = torch.stack([means[1] - means[0], means[3] - means[2]], -1)
        self.by_state = torch.stack([means[0], self.expected(states[:, 1])], -1)

    def expected(self, past: Tensor) -> Tensor:
        """The mean loss of all paths with the same past."""
        total = torch.zeros(int(past.max()) + 1, dtype=D).index_add(0, past, self.chance * self.loss)
        mass = torch.zeros(int(past.max()) + 1, dtype=D).index_add(0, past, self.chance)
        return (total / mass)[past]

    def truth(self) -> Tensor:
        x = self.x.clone().requires_grad_()
        value = self.everything.probability(self.everything.policy(x)) @ self.loss
        return torch.autograd.grad(value, x)[0]

    def trace(self, cotangent: Tensor) -> Tensor:
        states, actions = self.everything.states, self.everything.actions
        log_prob = self.policy.log()[states[:, :2], actions[:, :2]]
        continuation = Rollouts(states[:, 2:], actions[:, 2:])
        segments = Segments(states[:, :2], actions[:, :2], log_prob, continuation=continuation)
        layer = SoftResponse(TableReward(self.mdp, self.x), temperature=0.5, discount=0.95, estimator=Trace())
        (self.chance[:, None] * cotangent * layer(segments)).sum().backward()
        return layer.reward_model.x.grad


def test_the_trace_is_exact_for_true_advantages() -> None:
    path = Path()
    assert abs(float(path.chance.sum()) - 1) < 1e-12
    assert relative(path.trace(path.advantage), path.truth()) < 1e-6


def test_the_trace_is_wrong_for_a_loss_less_a_baseline() -> None:
    """The known wrong variant: the loss shares its future with the path that grad Q is taken along."""
    path = Path()
    loss = path.loss[:, None].expand(-1, 2)
    assert relative(path.trace(loss - path.chance @ path.loss), path.truth()) > 3
    assert relative(path.trace(loss - path.by_state), path.truth()) > 3


def test_a_short_trace_is_cut_off() -> None:
    path = Path()
    states, actions = path.everything.states[:1], path.everything.actions[:1]
    segments = Segments(states, actions, torch.zeros(states.shape, dtype=D))
    layer = SoftResponse(TableReward(path.mdp, path.x), temperature=1.0, discount=0.9, estimator=Trace(horizon=2))
    table = path.mdp.reward(path.x)[states, actions]
    expected = table + 0.9 * torch.cat([table[:, 1:], torch.zeros(1, 1, dtype=D)], 1)
    assert torch.allclose(layer.estimator.advantage(layer.reward_model, segments, 0.9), expected)


@pytest.mark.parametrize("wrap", [lambda g: g.pow(2).sum(), lambda g: g.sum()])
def test_a_second_derivative_is_refused(case: tuple[Enumeration, Tensor], wrap: object) -> None:
    everything, x = case
    mdp = everything.mdp
    layer = SoftResponse(TableReward(mdp, x), temperature=mdp.temperature, discount=mdp.discount)
    logp = layer(everything.segments(everything.policy(x).detach(), 5))
    (gradient,) = torch.autograd.grad(logp.sum(), layer.reward_model.x, create_graph=True)
    with pytest.raises(UnsupportedError, match="first order only"):
        torch.autograd.grad(wrap(gradient), layer.reward_model.x)  # type: ignore[operator]


def test_a_reward_linear_in_its_parameters_refuses_a_second_derivative_too() -> None:
    weight = torch.ones(2, dtype=D, requires_grad=True)
    reward = lambda observation, action: observation @ weight  # noqa: E731
    one = torch.ones(1, 3, 2, dtype=D)
    segments = Segments(one, one, torch.zeros(1, 3, dtype=D))
    layer = SoftResponse(reward, temperature=1.0, discount=0.5, estimator=Trace())
    (gradient,) = torch.autograd.grad(layer(segments).sum(), weight, create_graph=True)
    with pytest.raises(UnsupportedError):
        torch.autograd.grad(gradient.sum(), weight)


def test_func_grad_agrees_and_its_square_is_refused(case: tuple[Enumeration, Tensor]) -> None:
    everything, x = case
    _, truth, weight = everything.split(x)
    mdp = everything.mdp
    segments = everything.segments(everything.policy(x).detach(), 60)
    layer = SoftResponse(TableReward(mdp, x), temperature=mdp.temperature, discount=mdp.discount)

    def value(parameter: Tensor) -> Tensor:
        logp = torch.func.functional_call(layer, {"reward_model.x": parameter}, (segments,))
        return (weight[:, None] * logp).sum()

    assert relative(torch.func.grad(value)(x), truth) < 1e-6
    with pytest.raises(UnsupportedError):
        torch.func.grad(lambda p: torch.func.grad(value)(p).sum())(x)


@pytest.mark.parametrize(
    ("setting", "value"), [("temperature", 0.0), ("temperature", -1.0), ("discount", 1.0), ("discount", -0.1)]
)
def test_numbers_out_of_range(setting: str, value: float) -> None:
    settings = {"temperature": 1.0, "discount": 0.9, setting: value}
    with pytest.raises(InputError, match=f"{setting} is {value}"):
        SoftResponse(torch.nn.Identity(), **settings)


def test_horizon_zero() -> None:
    with pytest.raises(InputError, match="horizon is 0"):
        SoftResponse(torch.nn.Identity(), temperature=1.0, discount=0.9, horizon=0)


@pytest.mark.parametrize(
    "result", [torch.zeros(3), torch.zeros(2, 5), torch.zeros(2, 4, 1), torch.zeros(2, 4).long(), 1.0]
)
def test_a_reward_model_of_the_wrong_shape(result: object) -> None:
    segments = Segments(torch.zeros(2, 4, 3), torch.zeros(2, 4, 1), torch.zeros(2, 4))
    layer = SoftResponse(lambda observation, action: result, temperature=1.0, discount=0.9, estimator=Trace())
    with pytest.raises(InputError, match="reward model returned"):
        layer(segments)


def test_missing_rollouts_name_the_alternatives() -> None:
    segments = Segments(torch.zeros(2, 4, 3), torch.zeros(2, 4, 1), torch.zeros(2, 4))
    layer = SoftResponse(lambda observation, action: observation.sum(-1), temperature=1.0, discount=0.9)
    with pytest.raises(InputError, match="LeastSquaresCritic"):
        layer(segments)


def test_segments_of_different_lengths() -> None:
    with pytest.raises(InputError, match="observation has shape"):
        Segments(torch.zeros(2, 5, 3), torch.zeros(2, 4, 1), torch.zeros(2, 4))


def test_every_estimator_is_covered_here() -> None:
    assert {kind.__name__ for kind in ResponseEstimator.__subclasses__()} == {"Branches", "Trace", "LeastSquaresCritic"}


def test_enumeration_is_complete() -> None:
    everything = Enumeration.of(random_mdp(torch.Generator().manual_seed(0), states=3), 2)
    assert len(everything.states) == len(list(itertools.product(range(6), repeat=2)))
    assert abs(float(everything.probability(everything.policy(torch.ones(4, dtype=D))).sum()) - 1) < 1e-12
