"""The ensemble is a loop over its members, standardised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bigrad.errors import InputError
from bigrad.rlhf import RewardEnsemble


def ensemble(seed: int = 0, members: int = 3) -> RewardEnsemble:
    return RewardEnsemble(4, 2, members, 8, torch.Generator().manual_seed(seed))


def steps(*lead: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*lead, 4, generator=generator), torch.randn(*lead, 2, generator=generator)


def one_by_one(model: RewardEnsemble, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards and last hidden layers, member for member."""
    rewards, layers = [], []
    for member in range(model.weights[0].shape[0]):
        hidden = torch.cat([observation, action], -1)
        for weight, bias in zip(model.weights[:-1], model.biases[:-1], strict=True):
            hidden = torch.nn.functional.leaky_relu(hidden @ weight[member] + bias[member, 0])
        layers.append(hidden)
        rewards.append((hidden @ model.weights[-1][member] + model.biases[-1][member, 0]).squeeze(-1))
    return torch.stack(rewards), torch.cat(layers, -1)


@pytest.mark.parametrize("lead", [(), (7,), (3, 5), (2, 3, 4), (0,), (2, 0)])
@pytest.mark.parametrize("members", [1, 3])
def test_members_are_evaluated_as_if_one_by_one(lead: tuple[int, ...], members: int) -> None:
    model = ensemble(members=members)
    rewards, layers = one_by_one(model, *steps(*lead))
    assert model.raw(*steps(*lead)).shape == (members, *lead)
    torch.testing.assert_close(model.raw(*steps(*lead)), rewards)
    torch.testing.assert_close(model.features(*steps(*lead)), layers)
    torch.testing.assert_close(model(*steps(*lead)), rewards.mean(0))


def test_standardised_rewards_have_mean_0_and_deviation_1() -> None:
    model = ensemble()
    before = model.raw(*steps(1000))
    model.standardise(*steps(1000))
    reward = model(*steps(1000)).detach()
    assert float(reward.mean().abs()) < 1e-5
    assert float((reward.std() - 1).abs()) < 1e-5
    assert torch.equal(model.raw(*steps(1000)), before)


def test_a_reward_whose_zero_means_something_keeps_it() -> None:
    model = ensemble()
    model.standardise(*steps(1000), False)
    reward, raw = model(*steps(1000)).detach(), model.raw(*steps(1000)).mean(0).detach()
    assert float((reward.square().mean() - 1).abs()) < 1e-5
    torch.testing.assert_close(reward * float(raw.square().mean().sqrt()), raw)


def test_a_silent_model_has_no_reward_until_it_is_standardised() -> None:
    model = ensemble()
    model.silence()
    assert (model(*steps(50)) == 0).all()
    model.standardise(*steps(50))
    assert float(model(*steps(50)).detach().std()) > 0.9


def test_a_constant_reward_is_not_divided_by_zero() -> None:
    model = ensemble()
    with torch.no_grad():
        model.weights[-1].zero_()
    model.standardise(*steps(50))
    assert torch.isfinite(model(*steps(50))).all()


def test_gradients_reach_every_parameter() -> None:
    model = ensemble()
    model(*steps(20)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_a_seed_decides_the_weights_and_members_differ() -> None:
    first, again, other = ensemble(1), ensemble(1), ensemble(2)
    assert torch.equal(first(*steps(5)), again(*steps(5)))
    assert not torch.equal(first(*steps(5)), other(*steps(5)))
    assert not torch.equal(first.raw(*steps(5))[0], first.raw(*steps(5))[1])


def test_the_scale_is_saved_with_the_weights() -> None:
    model, copy = ensemble(0), ensemble(1)
    model.standardise(*steps(100))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(model(*steps(5)), copy(*steps(5)))


@pytest.mark.parametrize(("observations", "actions"), [(4, 3), (3, 2), (1, 1)])
def test_wrong_sizes_are_named(observations: int, actions: int) -> None:
    with pytest.raises(InputError, match=rf"{observations} and {actions} entries; wanted \(4, 2\)"):
        ensemble()(torch.zeros(5, observations), torch.zeros(5, actions))


def test_repr_shows_the_settings() -> None:
    assert repr(ensemble()).startswith("RewardEnsemble(")
    assert "observation_size=4, action_size=2, members=3, width=8" in repr(ensemble())
