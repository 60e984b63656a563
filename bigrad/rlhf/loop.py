"""What happens beside the agent's own learning: labels, upper steps, logs and checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from torch import Tensor

from ..errors import InputError
from .preferences import Pairs
from .progress import progress_bar
from .questions import ask, nothing_to_fit, watch
from .side_by_side import TRUE_REWARD
from .upper_level import Term, UpperStep, agreement, batches, halves_of, response_gradient, signal_share, upper_step

if TYPE_CHECKING:
    from .trainer import PreferenceTrainer

CHECKPOINT = 2_000  # steps between those of a run without rounds


@dataclass
class Place:
    """Where a run is between its rounds.

    Attributes:
        episode_return: true reward of the running episode of each environment so far.
        held_since: the step since which updates are put off, ``None`` where they are not.
        held_updates: the number of updates before.
        between: whether no step is under way.
    """

    episode_return: list[float] = field(default_factory=lambda: [0.0])
    held_since: int | None = None
    held_updates: int = 0
    between: bool = True


class StopTraining(Exception):  # no error
    """Leaves the agent's loop between two steps."""


class Watched(CallbackList):
    """The loop, and after it what a user watches the run by; who returns ``False`` ends it before its next step.

    stable-baselines3 would end it in the middle of one, and the step would be lost to the buffer.
    """

    def __init__(self, loop: Loop, others: MaybeCallback) -> None:
        listed = others if isinstance(others, list) else [] if others is None else [others]
        super().__init__([loop, *(it if isinstance(it, BaseCallback) else ConvertCallback(it) for it in listed)])
        self.loop = loop

    def _on_step(self) -> bool:
        self.loop.stopped |= not super()._on_step()
        return True


class Loop(BaseCallback):
    """Runs a round of the upper level whenever one is due, at the end of an episode.

    Before a round the policy stays as it is for some steps, so that the episodes its response is estimated on are its
    own.

    Args:
        trainer: whose run this is.
        folder: where to keep checkpoints; ``None`` keeps none.
        show: whether to show a progress bar.
    """

    def __init__(self, trainer: PreferenceTrainer, folder: Path | None, show: bool) -> None:
        super().__init__()
        self.trainer, self.folder = trainer, folder
        self.schedule = trainer.settings.schedule()
        settings = trainer.settings
        self.bar = progress_bar(settings.steps, trainer.agent.num_timesteps) if show else None
        self.place = trainer.place
        self.clock = (time.perf_counter(), trainer.agent.num_timesteps)
        self.state: dict[str, Any] = {}
        self.interrupted = self.stopped = self.unsaved = False
        trainer.agent.holding = self.place.held_since is not None and self._holds
        trainer.method.begin()

    def interrupt(self, *_: Any) -> None:
        """Stop before the next step."""
        self.interrupted = True

    @property
    def _due(self) -> int | None:
        done = self.trainer.rounds_done
        return self.schedule[done] if done < len(self.schedule) else None

    @property
    def _answers(self) -> bool:
        """Whether the round that is due has a response term."""
        return self.trainer.method.answers and (self._due or 0) >= self.trainer.settings.response_from

    @property
    def _holds(self) -> bool:
        """Whether the policy rests before that round, as its response is estimated on its own steps."""
        return self.trainer.method.holds and self._answers

    def _on_step(self) -> bool:
        rewards, infos, chosen = self.locals["rewards"], self.locals["infos"], self.trainer.settings
        # After an episode's last step, the new observation is the next one's first; its own is set aside.
        lasts = [info.get("terminal_observation", 0) for info in infos]
        seen = (rewards, self.trainer.agent.observation, self.locals["new_obs"], *lasts)
        if not all(np.isfinite(part).all() for part in seen):
            raise InputError(
                f"{chosen.env} returned a reward or an observation that is not finite at step "
                f"{self.num_timesteps}: mend the environment"
            )
        for env, total in enumerate(self.place.episode_return):
            total += infos[env].get(TRUE_REWARD, float(np.float32(rewards[env])))
            if self.locals["dones"][env]:
                self.trainer.history.append({"step": self.num_timesteps, "episode_return": total})
                self.logger.record("rollout/true_return", total)
                self.state["return"] = f"{total:.0f}"
                total = 0.0
            self.place.episode_return[env] = total
        due = self._due
        begins = max(chosen.warm_up + 1, due - chosen.on_policy_steps) if due is not None else np.inf
        if self.place.held_since is None and self.num_timesteps >= begins:
            self.place.held_since, self.place.held_updates = self.num_timesteps, self.trainer.agent.updates
            self.trainer.agent.holding = self._holds
        if self.num_timesteps % 50 < chosen.envs:
            self._show()
        return True

    def _on_training_end(self) -> None:
        self.logger.dump(self.num_timesteps)
        self.logger.close()

    def _on_rollout_start(self) -> None:
        # Between two steps, and after the updates of the last: who goes on from here does what would have been done.
        if self.unsaved and self.folder is not None:
            self.trainer.save(self.folder)
        self.unsaved = False
        if self.interrupted:
            raise KeyboardInterrupt
        if self.stopped:
            raise StopTraining
        self.place.between = False

    def _on_rollout_end(self) -> None:
        # Here the step is in the buffer already.
        self.place.between = True
        self.unsaved |= not self.schedule and self.num_timesteps % CHECKPOINT < self.trainer.settings.stride
        due = self._due
        if due is None or self.num_timesteps < due:
            return
        done, chosen = self.trainer.rounds_done, self.trainer.settings
        buffer = self.trainer.buffer
        whole = bool(buffer.dones[buffer.pos - 1 - np.arange(chosen.update_every)].any())
        # Every round finds its place before the run ends: one between two updates at the latest.
        latest = min(due + chosen.on_policy_steps, chosen.steps - chosen.stride * (len(self.schedule) - done - 1))
        if whole or self.num_timesteps >= latest or done == 0:
            self._round()

    def _round(self) -> None:
        trainer, chosen = self.trainer, self.trainer.settings
        row: dict[str, Any] = {"step": self.num_timesteps}
        fitted = any(past.get("upper_steps") for past in trainer.history)
        previous = self.schedule[trainer.rounds_done - 1] if trainer.rounds_done else 0
        row.update(ask(trainer, self.num_timesteps - previous, fitted))
        response = self._response(row) if fitted else []
        pairs, label = trainer.store.load()
        taken = self._fit(pairs, label, chosen.upper_steps if fitted else chosen.first_upper_steps, response)
        trainer.buffer.reward_model = trainer.method.reward()
        row.update(
            labels=trainer.store.count,
            upper_steps=len(taken),
            loss=float(np.mean([step.loss for step in taken[-10:]])) if taken else None,
            ratio=float(np.median([step.ratio for step in taken])) if response else None,
            estimated_ratio=float(np.median([step.estimated for step in taken])) if response else None,
        )
        if taken:
            watch(trainer, pairs, label.numpy(), row)
        else:
            nothing_to_fit(trainer)
        trainer.history.append(row)
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self.logger.record(f"preference/{name}", value)
        trainer.rounds_done += 1
        trainer.agent.holding = False
        self.place.held_since = None
        self.state["labels"] = f"{trainer.store.count}"
        if row.get("fresh_accuracy") is not None:
            self.state["accuracy"] = f"{row['fresh_accuracy']:.2f}"
        self.unsaved = True

    def _fit(self, pairs: Pairs, label: Tensor, count: int, response: list[Term]) -> list[UpperStep]:
        """Move the reward model; it stays silent as long as there is no label."""
        trainer, chosen = self.trainer, self.trainer.settings
        reward, buffer = trainer.reward_model, trainer.buffer
        if len(label) == 0:
            reward.silence()
            return []
        device = reward.mean.device
        pairs = Pairs(pairs.observation.to(device), pairs.action.to(device), pairs.returns)
        label = label.to(device)
        taken, indirect = [], []
        for step, some in enumerate(batches(len(label), chosen.upper_batch, count, trainer.random)):
            if step % chosen.response_every == 0:
                indirect = response_gradient(response, reward, chosen.response_weight)
            batch = Pairs(pairs.observation[some], pairs.action[some], pairs.returns[some])
            taken.append(upper_step(reward, trainer.optimizer, batch, label[some], indirect, chosen.response_limit))
        every = buffer.spread
        # Where an episode is over the reward is 0: then 0 is no matter of choice.
        reward.standardise(*buffer.steps(every), buffer.after_end != "zero" or not buffer.ended(every).any())
        return taken

    def _response(self, row: dict[str, Any]) -> list[Term]:
        """The response term of this round, before the reward model is fitted to the new labels."""
        trainer, held_since, chosen = self.trainer, self.place.held_since, self.trainer.settings
        if not self._answers or held_since is None:
            return []
        holds = trainer.method.holds
        episodes = trainer.buffer.recent_episodes(self.num_timesteps - held_since + chosen.envs) if holds else []
        terms, expected = trainer.method.terms(episodes)
        halves = halves_of(terms, trainer.reward_model)
        share = signal_share(*halves) if halves else None
        if share is not None and chosen.response_shrink:
            terms = [lambda term=term: share * term() for term in terms]  # type: ignore[misc]
        row.update(
            agreement=agreement(*halves) if halves else None,
            signal_share=share,
            expected_loss=expected,
            response_age=trainer.agent.updates - self.place.held_updates if holds else 0,
        )
        return terms

    def _show(self) -> None:
        if self.bar is None:
            return
        now, step = time.perf_counter(), self.trainer.agent.num_timesteps
        speed = (step - self.clock[1]) / max(now - self.clock[0], 1e-9)
        names = {"labels": "labels", "accuracy": "accuracy", "return": "true return"}
        state = " ".join(f"{names[key]} {self.state[key]}" for key in names if key in self.state)
        self.bar.update(0, completed=step, speed=speed, state=state)

    def close(self) -> None:
        """Take the progress bar away and let updates go on."""
        self._show()
        if self.bar is not None:
            self.bar.stop()
        self.trainer.agent.holding = False
