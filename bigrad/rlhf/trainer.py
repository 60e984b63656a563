"""Learn a reward from preferences while a policy learns from the reward."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import get_device

from ..errors import InputError, RunError
from . import run_folder
from .agents import make_agent
from .evaluation import Policy, film, true_returns
from .generators import GlobalGenerators
from .interruption import on_interrupt
from .loop import Loop, Place, StopTraining, Watched
from .methods import KINDS
from .people import People
from .picture_archive import PictureArchive
from .picture_reward import reward_ensemble
from .preferences import PreferenceStore
from .questions import warn_of_no_response
from .replay import RelabelledReplayBuffer
from .result import Result
from .settings import Settings
from .side_by_side import side_by_side
from .snapshot import write_atomically
from .teacher import SyntheticTeacher, Teacher


class PreferenceTrainer:
    """A reward model and a policy, learnt together from comparisons of short clips.

    The upper level moves the reward model: down the preference loss, and with ``method="sobirl"`` also along the
    policy's response to it, through :class:`~bigrad.layers.SoftResponse`. The lower level is
    an agent of stable-baselines3 at a fixed temperature on the current reward.

    Args:
        env: a registered gymnasium environment with bounded continuous or with discrete actions.
        method: one of ``METHODS``: ``"sobirl"``, ``"drlhf"`` (no response), the rivals ``"hpgd"`` and ``"pbrl"``,
            ``"sac"`` or ``"softdqn"`` (the true reward: the ceiling), ``"random"``.
        teacher: who compares; default ``SyntheticTeacher()``. :class:`~bigrad.rlhf.People` answer when they come.
        labels: how many comparisons.
        seed: of everything.
        device: where the networks live; ``"auto"`` lets torch choose.
        settings: any other field of :class:`Settings`.

    Attributes:
        agent: ``agent.predict`` acts on what the networks see, :meth:`act` on what the environment shows.
        reward_model: ``(observation, scaled action) -> reward``. Who moves it by hand assigns it to
            ``buffer.reward_model`` again, which keeps its rewards.
        history: what happened, a dictionary for each episode and each round.

    Raises:
        InputError: an unknown environment or method, or a number out of range.
        MissingPackage: the environment needs something that is not installed.
        UnsupportedError: actions or observations that are not served.

    Source: Bilevel Reinforcement Learning via the Development of Hyper-gradient without Lower-Level Convexity
    (Yang, Gao, Yuan, 2025); Deep Reinforcement Learning from Human Preferences (Christiano et al., 2017).
    """

    def __init__(
        self,
        env: str = "Pendulum-v1",
        *,
        method: str = "sobirl",
        teacher: Teacher | People | None = None,
        labels: int = 200,
        seed: int = 0,
        device: str | torch.device = "auto",
        **settings: Any,
    ) -> None:
        try:
            self.settings = Settings(env=env, method=method, labels=labels, seed=seed, **settings)
        except TypeError as error:
            raise InputError(f"{error}; Settings lists the names") from error
        self.teacher: Teacher | People | None = SyntheticTeacher() if teacher is None else teacher
        if isinstance(self.teacher, SyntheticTeacher) and self.teacher.seed is None:
            self.teacher.generator.manual_seed(seed)
        self._build(device)

    def _build(self, device: str | torch.device) -> None:
        chosen = self.settings
        try:
            device = get_device(device)
        except RuntimeError as error:
            raise InputError(f"device is {device!r}, which torch does not know: {error}") from error
        people = self.teacher if isinstance(self.teacher, People) else None
        if people:
            people.films.clear()
        env = side_by_side(chosen, people.watch if people else None)
        self.generators = GlobalGenerators()
        with self.generators:
            self.agent = make_agent(chosen, env, device)
        self.buffer.after_end, self.buffer.discount = chosen.after_end, chosen.discount
        streams = np.random.SeedSequence(chosen.seed).spawn(2)
        self.random = np.random.default_rng(streams[0])
        weights = torch.Generator().manual_seed(int(streams[1].generate_state(1)[0]))
        shown, taken = self.agent.observation_space, self.agent.action_space
        reward_model = reward_ensemble(shown, taken, chosen.members, chosen.width, weights)
        self.reward_model = reward_model.to(self.agent.device)
        self.optimizer = torch.optim.AdamW(
            self.reward_model.parameters(), lr=chosen.reward_step, weight_decay=chosen.reward_decay, fused=True
        )
        self.method = KINDS[chosen.method](self)
        self.store = PreferenceStore()
        self.history: list[dict[str, Any]] = []
        self.rounds_done = 0
        self.place = Place([0.0] * chosen.envs)
        self.seconds = 0.0
        self.result: Result | None = None
        self.archive: PictureArchive | None = None
        self.logger: Logger | None = None

    @property
    def buffer(self) -> RelabelledReplayBuffer:
        """The agent's replay buffer."""
        assert isinstance(self.agent.replay_buffer, RelabelledReplayBuffer)
        return self.agent.replay_buffer

    def learn(
        self,
        steps: int | None = None,
        *,
        progress_bar: bool = False,
        out: str | Path | None = None,
        callback: MaybeCallback = None,
        command: str = "",
    ) -> Result:
        """Learn, evaluate on the true reward, and say what was reached.

        Args:
            steps: environment steps in all; default the settings'. A trainer that was loaded goes on to this number.
            progress_bar: show steps/s, labels, label accuracy and true return (needs rich).
            out: a folder that is kept up to date while learning, so that the run can be resumed; it gets
                ``result.json``, ``curves.png``, the policy, the reward model and TensorBoard curves.
            callback: of stable-baselines3, one or a list. One that returns ``False`` ends the run before its next step;
                it can go on later, as after Ctrl-C.
            command: what to write down as the command that made the result.

        Raises:
            RunError: the folder cannot be written; what was saved before still loads.
            SolveError: a linear system of the response term has no solution.
        """
        if steps is not None and steps != self.settings.steps:
            if self.agent.num_timesteps:
                raise RunError(f"this run was started for {self.settings.steps} steps; start a new one for {steps}")
            self._restart_with(steps)
        folder = None if out is None else Path(out).resolve()
        if folder is not None:
            self._move_labels_to(folder)
        self._set_logger(folder)
        began = time.perf_counter()
        loop = Loop(self, folder, progress_bar)
        watched = Watched(loop, callback)
        with self.generators, on_interrupt(loop.interrupt):
            try:
                remaining = self.settings.steps - self.agent.num_timesteps
                if remaining > 0:
                    self.agent.learn(remaining, watched, reset_num_timesteps=self.agent.num_timesteps == 0)
            except StopTraining:
                watched.on_training_end()
            finally:
                # Ctrl-C ends up here too, between two steps: what was learnt so far is on disk before it goes on.
                self.seconds += time.perf_counter() - began
                loop.close()
                if folder is not None:
                    self.save(folder)
        began = time.perf_counter()
        evaluation = true_returns(self.settings.env, self._policy, self.settings.episodes)
        self.seconds += time.perf_counter() - began
        warn_of_no_response(self)
        self.result = Result.of(self, evaluation, command or shlex.join(sys.argv))
        if folder is not None:
            run_folder.write_result(folder, self.result, self.history)
        return self.result

    def _set_logger(self, folder: Path | None) -> None:
        """TensorBoard's in the folder, unless the agent was given another one by its user."""
        if self.agent._custom_logger and self.agent.logger is not self.logger:  # noqa: SLF001  # no public name for it
            return
        self.logger = Logger(None, []) if folder is None else configure(str(folder / "tensorboard"), ["tensorboard"])
        self.agent.set_logger(self.logger)

    def _restart_with(self, steps: int) -> None:
        content = {**self.settings.to_json(), "steps": steps}
        device = self.agent.device
        if self.agent.env is not None:
            self.agent.env.close()
        self.settings = Settings(**content)
        self._build(device)

    def _move_labels_to(self, folder: Path) -> None:
        """From now on each label is on disk the moment it is given."""
        if self.store.path == folder / run_folder.LABELS:
            return
        if run_folder.holds_a_run(folder):
            raise RunError(
                f"{folder} holds a run already: continue it with PreferenceTrainer.load or --resume, or choose another "
                "folder"
            )
        store = run_folder.open_labels(folder)
        store.extend(self.store)
        self.store = store
        self.save(folder)

    def save(self, path: str | Path) -> None:
        """Write everything needed to go on into a folder: safetensors, JSON and SQLite, no pickle.

        Raises:
            RunError: the folder cannot be written; what was saved before still loads.
        """
        run_folder.save(Path(path).resolve(), self)

    @classmethod
    def load(
        cls, path: str | Path, *, teacher: Teacher | None = None, device: str | torch.device = "auto"
    ) -> PreferenceTrainer:
        """Read a folder that :meth:`save` or a run wrote; nothing in it is executed.

        Args:
            path: the folder.
            teacher: who goes on labelling a run whose teacher was not a :class:`SyntheticTeacher`.
            device: where the networks live.

        Raises:
            RunError: it is no run, damaged, or of another version.
        """
        return run_folder.load(cls, Path(path).resolve(), teacher, device)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The best actions the policy knows at observations as the environment gives them ``(*, observation)``."""
        if self.settings.normalise:
            observation = self.agent.seen(torch.as_tensor(observation)).numpy()
        return self.agent.predict(observation, deterministic=True)[0]

    @property
    def _policy(self) -> Policy | None:
        return None if self.settings.method == "random" else self.act

    def film(self, path: str | Path, episodes: int = 5, steps: int = 60) -> None:
        """Film the policy in the first episodes that it is evaluated on.

        Args:
            path: of the animated WebP that is written.
            episodes: how many, one after the other.
            steps: of each at most.

        Raises:
            InputError: there is no step to film.
            MissingPackage: the environment renders with a package that is not installed.
            RunError: the file cannot be written.
            UnsupportedError: the environment gives no pictures, or cannot on this machine.
        """
        for name, value in (("episodes", episodes), ("steps", steps)):
            if value < 1:
                raise InputError(f"{name} is {value}; wanted at least 1")
        write_atomically(Path(path).resolve(), film(self.settings.env, self._policy, episodes, steps))

    def __repr__(self) -> str:
        chosen = self.settings
        return (
            f"PreferenceTrainer({chosen.env!r}, method={chosen.method!r}, labels={self.store.count}/{chosen.labels}, "
            f"steps={self.agent.num_timesteps}/{chosen.steps}, seed={chosen.seed})"
        )
