"""Discrete actions: a deep Q-network whose policy is the softmax of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor

from .agent import SoftAgent, looked_at


class SoftDQNPolicy(DQNPolicy):
    """Acts by ``softmax(Q / temperature)``; the best action where it is asked to be deterministic."""

    def __init__(self, *args: Any, temperature: float = 0.1, **settings: Any) -> None:
        self.temperature = temperature
        super().__init__(*args, **settings)

    def scores(self, observation: Tensor) -> Tensor:
        """``Q / temperature`` ``(N, actions)``."""
        scores: Tensor = self.q_net(observation) / self.temperature
        return scores

    def _predict(self, obs: Any, deterministic: bool = True) -> Tensor:
        scores = self.scores(obs)
        if deterministic:
            return scores.argmax(-1)
        return torch.multinomial(scores.softmax(-1), 1).squeeze(-1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"temperature": self.temperature}


class SoftCnnPolicy(SoftDQNPolicy):
    """The same on images, seen through the network of DQN."""

    def __init__(self, *args: Any, features_extractor_class: Any = NatureCNN, **settings: Any) -> None:
        super().__init__(*args, features_extractor_class=features_extractor_class, **settings)


class _SoftTargets(DQN):
    """DQN that learns from soft targets."""

    temperature: float

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """So many steps down the soft Bellman error."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = [self._update(batch_size) for _ in range(gradient_steps)]
        self.policy.set_training_mode(False)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if losses:
            self.logger.record("train/loss", float(torch.stack(losses).mean()))

    def _update(self, batch_size: int) -> Tensor:
        """One step down the mean squared error of the soft Bellman equation on a batch; the loss before."""
        assert self.replay_buffer is not None
        seen = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
        with torch.no_grad():
            following = self.temperature * torch.logsumexp(
                self.q_net_target(seen.next_observations) / self.temperature, -1, keepdim=True
            )
            target = seen.rewards + (1 - seen.dones) * self.gamma * following
        value = self.q_net(seen.observations).gather(1, seen.actions.long())
        # The absolute error of Huber's loss would find the median, which satisfies no Bellman equation.
        loss = torch.nn.functional.mse_loss(value, target)
        self.policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return loss.detach()


class SoftDQN(SoftAgent, _SoftTargets):
    r"""DQN on the soft Bellman equation, so that :math:`\log \pi = (Q - V) / \tau` holds exactly.

    .. math:: Q(s, a) \leftarrow r + \gamma \tau \log \sum_b \exp(Q^-(s', b) / \tau)

    The policy is :math:`\pi = softmax(Q / \tau)` and explores by itself. Of several values the network can be wrong
    about, a softmax picks the high ones: like DQN it overestimates, the less the higher the temperature.

    Args:
        policy: ``"MlpPolicy"`` or ``"CnnPolicy"``.
        env: an environment with discrete actions.
        temperature: :math:`\tau`, in units of the reward.
        policy_kwargs: as stable-baselines3 has them.
        settings: any other argument of DQN.

    Source: Reinforcement Learning with Deep Energy-Based Policies (Haarnoja, Tang, Abbeel, Levine, 2017).
    """

    origin = "stable-baselines3 DQN with soft targets"
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": SoftDQNPolicy, "CnnPolicy": SoftCnnPolicy}
    policy: SoftDQNPolicy
    action_space: spaces.Discrete

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        temperature: float = 0.1,
        policy_kwargs: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.temperature = temperature
        given = {**(policy_kwargs or {}), "temperature": temperature}
        quiet = {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
        super().__init__(policy, env, policy_kwargs=given, **(quiet | settings))

    @torch.no_grad()
    def probabilities(self, observation: Tensor) -> Tensor:
        """``pi(. | s)`` ``(N, actions)``."""
        return self._scores(observation).softmax(-1)

    @torch.no_grad()
    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log-probability of one-hot actions ``(N, actions)`` at ``observation`` ``(N, *observation)``."""
        return (self._scores(observation).log_softmax(-1) * action).sum(-1)

    def _scores(self, observation: Tensor) -> Tensor:
        return looked_at(lambda part: self.policy.scores(self.seen(part)), observation)

    @torch.no_grad()
    def mean(self, function: Callable[[Tensor, Tensor], Tensor], observation: Tensor, draws: int) -> Tensor:
        """The mean of ``function(observation, action)`` over the policy, exactly: ``draws`` is of no use."""
        chance = self.probabilities(observation)
        count = chance.shape[-1]
        actions = torch.eye(count, dtype=chance.dtype, device=chance.device)
        actions = actions.unsqueeze(1).expand(count, len(chance), count)
        values = function(observation.expand(count, *observation.shape), actions)
        return (chance.mT.reshape(count, len(chance), *(1,) * (values.ndim - 2)) * values).sum(0)

    @torch.no_grad()
    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """The network's last hidden layer at the action's own place, ``(*leading shape, actions * hidden)``.

        The value is linear in them, and they are in the action: at the probabilities of a policy they are their mean.
        """
        network = self.q_net
        lead = action.shape[:-1]

        def last(part: Tensor) -> Tensor:
            found: Tensor = network.q_net[:-1](network.extract_features(self.seen(part), network.features_extractor))
            return found

        hidden = looked_at(last, observation.reshape(-1, *observation.shape[len(lead) :]))
        both: Tensor = (action.unsqueeze(-1) * hidden.reshape(*lead, 1, -1)).flatten(-2)
        return both
