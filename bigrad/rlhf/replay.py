"""A replay buffer whose rewards are those of the current reward model, and from which segments are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from .following import Following
from .reward_model import RewardEnsemble
from .teacher import ReturnScale

MOST_PICTURES = 4096  # that the scale of the reward is measured on


class RelabelledReplayBuffer(ReplayBuffer):
    """stable-baselines3's buffer; it keeps the true rewards and hands out the reward model's.

    Steps are named by their places: a number for each step of each environment, those that were taken at the same time
    side by side; with one environment the places are the rows of the arrays. Pictures stay bytes, and what follows a
    step is not kept a second time, see :class:`~bigrad.rlhf.following.Following`.

    Attributes:
        learnt: the model's rewards of the steps that it has looked at, NaN elsewhere ``(rows, envs)``.
        after_end: what a segment holds after the end of its episode (a time limit is no end). ``"zero"``: padding, a
            place of -1, at which the action is NaN, and observation and reward are 0. ``"absorb"``: its last step,
            again and again; the model's reward of that step then stands for all that follow, r / (1 - discount).
            ``"exclude"``: there are no such segments.
        discount: of the agent, for ``"absorb"``.
    """

    after_end: str = "exclude"
    discount: float = 0.0

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        **settings: Any,
    ) -> None:
        pictures = len(observation_space.shape or ()) == 3
        once = {"optimize_memory_usage": True, "handle_timeout_termination": False} if pictures else {}
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, **(settings | once))
        if pictures:  # theirs loses the last observation of an episode that a time limit cuts off
            self.optimize_memory_usage, self.handle_timeout_termination = False, True
            self.next_observations = cast(np.ndarray, Following(self.observations, self.dones))
        self.reward_model = None

    @property
    def reward_model(self) -> RewardEnsemble | None:
        """Whose reward is handed out; ``None`` hands out the true one.

        It looks at each step once, when that is first drawn. A model that has moved since is to be assigned again.
        """
        return self._reward_model

    @reward_model.setter
    def reward_model(self, model: RewardEnsemble | None) -> None:
        self._reward_model = model
        self.learnt = np.full_like(self.rewards, np.nan)

    def add(self, *step: Any, **named: Any) -> None:
        """Take a step of each environment, as stable-baselines3's does."""
        self.learnt[self.pos] = np.nan
        super().add(*step, **named)

    @property
    def pictures(self) -> bool:
        """Whether observations are pictures."""
        return self.observations.ndim == 5

    @property
    def count(self) -> int:
        """How many steps there are, of all environments together; their places are the numbers below."""
        return self.size() * self.n_envs

    @property
    def spread(self) -> np.ndarray:
        """Every place, or so many evenly spread ones as one can look at where each holds a picture."""
        return np.arange(0, self.count, -(-self.count // MOST_PICTURES) if self.pictures and self.count else 1)

    def ages(self, places: np.ndarray) -> np.ndarray:
        """How many steps ago, in its own environment, the step at each place was taken; 0 is the newest."""
        ages: np.ndarray = (self.pos - 1 - places // self.n_envs) % self.buffer_size
        return ages

    def _at(self, name: str, places: np.ndarray) -> np.ndarray:
        found: np.ndarray = getattr(self, name)[places // self.n_envs, places % self.n_envs]
        return found

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        places = batch_inds * self.n_envs + np.random.randint(0, self.n_envs, len(batch_inds))  # noqa: NPY002  # theirs
        raw, ended = self._at("observations", places), self.ended(places)
        now = self.to_torch(np.asarray(self._normalize_obs(raw, env)))
        following = self.to_torch(np.asarray(self._normalize_obs(self._at("next_observations", places), env)))
        actions = self.to_torch(self._at("actions", places))
        reward = self.to_torch(self._at("rewards", places) if self.reward_model is None else self._learnt(places))
        if self.reward_model is not None and self.after_end == "absorb":
            reward = torch.where(self.to_torch(ended), reward / (1 - self.discount), reward)
        over = self.to_torch(ended.astype(np.float32))
        return ReplayBufferSamples(now, actions, following, over.unsqueeze(-1), reward.unsqueeze(-1))

    @torch.no_grad()
    def _learnt(self, places: np.ndarray) -> np.ndarray:
        assert self.reward_model is not None
        new = places[np.isnan(self._at("learnt", places))]
        if len(new):
            self.learnt[new // self.n_envs, new % self.n_envs] = self.reward_model(*self.steps(new)).cpu().numpy()
        return self._at("learnt", places)

    def steps(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Observations and actions at ``places`` of any shape; 0 and NaN at padding. Discrete actions are one-hot."""
        observation = self._seen("observations", places)
        action = self._vectors(self.to_torch(self._at("actions", places)))
        padded = places < 0
        if padded.any():
            observation[padded], action[padded] = 0, torch.nan
        return observation, action

    def _seen(self, name: str, places: np.ndarray) -> Tensor:
        """Pictures as bytes, all else in single precision."""
        found = self._at(name, places)
        return self.to_torch(found if self.pictures else found.astype(np.float32))

    def _vectors(self, actions: Tensor) -> Tensor:
        """Actions as vectors, made of numbers ``(*, 1)`` where they are discrete."""
        if not isinstance(self.action_space, spaces.Discrete):
            return actions
        return torch.nn.functional.one_hot(actions.squeeze(-1).long(), int(self.action_space.n)).float()

    def next_steps(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Next observations, and 1 where the episode went on (a time limit is no end), at ``places``."""
        goes_on = (~self.ended(places)).astype(np.float32)
        return self._seen("next_observations", places), self.to_torch(goes_on)

    def ended(self, places: np.ndarray) -> np.ndarray:
        """Whether the episode came to its own end with the step at ``places``."""
        ended: np.ndarray = (self._at("dones", places) > 0) & (self._at("timeouts", places) == 0)
        return ended

    def _order(self, rows: int) -> np.ndarray:
        """The places of the latest rows, oldest first ``(rows, envs)``."""
        found: np.ndarray = (self.pos - rows + np.arange(rows))[:, None] % self.buffer_size
        return found * self.n_envs + np.arange(self.n_envs)

    def segment_starts(self, length: int) -> np.ndarray:
        """Places where a segment of ``length`` steps may begin, oldest first."""
        count = self.size()
        order, number = self._order(count), np.arange(count)[:, None]
        # Where the episode of each step is over; the running one's last step is the newest of all.
        over = np.where(self._at("dones", order) > 0, number, count - 1)
        last = np.minimum.accumulate(over[::-1])[::-1]
        serves = last - number + 1 >= length
        if self.after_end != "exclude":
            serves |= self.ended(np.take_along_axis(order, last, 0))
        starts: np.ndarray = order[serves]
        return starts

    def segment(self, starts: np.ndarray, length: int) -> np.ndarray:
        """The places ``(*starts, length)`` of segments; after the end of the episode see ``after_end``."""
        places = (starts[..., None] + self.n_envs * np.arange(length)) % (self.buffer_size * self.n_envs)
        done = self._at("dones", places)
        over = done.cumsum(-1) - done > 0
        if self.after_end == "absorb":
            last = np.maximum.accumulate(np.where(over, 0, np.arange(length)), -1)
            held: np.ndarray = np.take_along_axis(places, last, -1)
            return held
        padded: np.ndarray = np.where(over, -1, places)
        return padded

    def true_rewards(self, places: np.ndarray) -> np.ndarray:
        """True rewards at ``places`` of any shape, 0 at padding."""
        rewards: np.ndarray = np.where(places < 0, np.float32(0), self._at("rewards", places))
        return rewards

    def true_returns(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Sums of true rewards of segments."""
        returns: np.ndarray = self.true_rewards(self.segment(starts, length)).sum(-1)
        return returns

    def windows(self, episode: np.ndarray, length: int) -> np.ndarray:
        """Those places of a whole episode where a segment may begin."""
        padded = self.after_end != "exclude" and self.ended(episode[-1])
        return episode if padded else episode[: max(0, len(episode) - length + 1)]

    def return_scale(self, length: int, episodes: int = 10) -> ReturnScale:
        """How large true returns of segments were over the last episodes; over all steps if none is over yet."""
        whole = self._episodes(self.size(), from_the_start=True)[-episodes:]
        order = np.concatenate(whole) if whole else self._order(self.size()).ravel()
        starts = self.segment_starts(length)
        returns = self.true_returns(starts[np.isin(starts, order)], length)
        spread = float(returns.std()) if len(returns) else 0.0
        return ReturnScale(float(self._at("rewards", order).mean()) * length, spread)

    def recent_episodes(self, steps: int) -> list[np.ndarray]:
        """The places of every episode that began and ended within the last ``steps`` steps, the first to end first."""
        rows = min(self.size(), steps // self.n_envs)
        return self._episodes(rows, from_the_start=rows == self.size() and not self.full)

    def _episodes(self, rows: int, from_the_start: bool) -> list[np.ndarray]:
        """The episodes that ended within the latest rows; a first one if it began there, or ``from_the_start``."""
        if not rows:
            return []
        order = self._order(rows)
        over = self._at("dones", order)
        # An episode begins with the first of these rows where another ended before it.
        before = order[0] - self.n_envs
        begins = np.full(self.n_envs, from_the_start) | ((rows < self.size()) & (self._at("dones", before) > 0))
        found = []
        for env in range(self.n_envs):
            edges = np.flatnonzero(over[:, env]) + 1
            edges = np.concatenate([[0], edges]) if begins[env] else edges
            found += [(end, order[begin:end, env]) for begin, end in pairwise(edges)]
        return [places for _, places in sorted(found, key=lambda episode: episode[0])]
