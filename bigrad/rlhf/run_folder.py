"""A run on disk: read without executing anything, written so that the last good state always loads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.vec_env import DummyVecEnv

from ..errors import BigradError, RunError
from .agent import SoftAgent
from .curves import draw_curves
from .environment_state import read_environment, write_environment
from .following import Following
from .loop import Place
from .people import People
from .picture_archive import PictureArchive
from .preferences import PreferenceStore
from .replay import RelabelledReplayBuffer
from .result import Result
from .settings import Settings
from .snapshot import load_tree, read_json, read_yaml, save_tree, write_json, write_yaml
from .soft_actor_critic import SquashedGaussianAgent
from .teacher import SyntheticTeacher, Teacher

if TYPE_CHECKING:
    from .trainer import PreferenceTrainer

FORMAT = "bigrad run 1"
CONFIG, CHECKPOINT, LABELS, HISTORY = "config.yaml", "checkpoint.safetensors", "labels.sqlite", "history.json"
_PEOPLE = "people"  # as the configuration names them
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "learnt")
_MOMENTS = ("mean", "var", "count")


def holds_a_run(folder: Path) -> bool:
    """Whether a run has been started in ``folder``."""
    return config_path(folder).exists()


def config_path(folder: Path) -> Path:
    """Where the configuration is; bigrad 0.1 wrote JSON."""
    former = folder / "config.json"
    return former if former.exists() and not (folder / CONFIG).exists() else folder / CONFIG


def read_config(folder: Path) -> Any:
    """What :func:`save` wrote down of the run's settings and teacher.

    Raises:
        RunError: it is missing or damaged.
    """
    path = config_path(folder)
    return read_json(path) if path.suffix == ".json" else read_yaml(path)


def open_labels(folder: Path) -> PreferenceStore:
    """The folder's labels, made if missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}. Choose another folder") from error
    return PreferenceStore(folder / LABELS)


def save(folder: Path, trainer: PreferenceTrainer) -> None:
    """Write configuration, checkpoint, labels, and the policy and reward model for others to use."""
    agent, buffer = trainer.agent, trainer.buffer
    if trainer.store.path != folder / LABELS:
        copy = open_labels(folder)
        copy.extend(trainer.store)
        copy.close()
    teacher = trainer.teacher if isinstance(trainer.teacher, SyntheticTeacher) else None
    weights = agent.get_parameters()
    state = {
        "agent": weights,
        "buffer": {name: _saved(buffer, name) for name in _arrays(buffer)} | {"pos": buffer.pos, "full": buffer.full},
        "counters": {
            "num_timesteps": agent.num_timesteps,
            "_n_updates": agent._n_updates,  # noqa: SLF001  # stable-baselines3 has no public name for it
            "_episode_num": agent._episode_num,  # noqa: SLF001
            "owed": agent.owed,
        },
        "temperature": agent.log_ent_coef if isinstance(agent, SquashedGaussianAgent) else None,
        "scale": _scale(agent),
        "reward_model": dict(trainer.reward_model.state_dict()),
        "labelled_reward": buffer.reward_model is not None,
        "optimizer": trainer.optimizer.state_dict(),
        "random": {
            "global": trainer.generators.state,
            "own": trainer.random.bit_generator.state,
            "action": agent.action_space.np_random.bit_generator.state,
            "teacher": None if teacher is None else teacher.generator.get_state(),
        },
        "rounds_done": trainer.rounds_done,
        "episode": _episode(trainer),
        "method": trainer.method.state(),
        "labels": trainer.store.asked,  # an undo does not change it
        "seconds": trainer.seconds,
        "history": trainer.history,
    }
    archive, rows = trainer.archive, agent.num_timesteps // buffer.n_envs
    if buffer.pictures:
        if archive is None or archive.folder != folder:
            archive = trainer.archive = PictureArchive(folder)
        archive.write(buffer.observations, buffer.size(), rows)
    save_tree(folder / CHECKPOINT, state)
    if buffer.pictures and archive:
        archive.forget(rows - buffer.size())  # the checkpoint before needed them
    write_json(folder / HISTORY, trainer.history)
    config = {
        "format": FORMAT,
        "settings": trainer.settings.to_json(),
        "teacher": _PEOPLE if isinstance(trainer.teacher, People) else teacher and teacher.to_json(),
    }
    write_yaml(folder / CONFIG, config)
    actions, observations, scale = agent.action_space, agent.observation_space, _scale(agent)
    if isinstance(actions, Box):
        acts = {"action_low": actions.low.tolist(), "action_high": actions.high.tolist()}
    else:
        assert isinstance(actions, Discrete)
        acts = {"actions": int(actions.n)}
    save_tree(folder / "policy.safetensors", dict(weights["policy"]))
    write_json(
        folder / "policy.json",
        {
            "kind": f"{agent.origin} {'CnnPolicy' if buffer.pictures else 'MlpPolicy'}",
            "hidden_units": agent.policy_kwargs["net_arch"],
            "observation_shape": list(observations.shape or ()),
            "temperature": agent.temperature,
            **acts,
            **{f"observation_{name}": np.asarray(part).tolist() for name, part in (scale or {}).items()},
        },
    )
    save_tree(folder / "reward_model.safetensors", dict(trainer.reward_model.state_dict()))
    write_json(
        folder / "reward_model.json",
        {
            "kind": f"bigrad {type(trainer.reward_model).__name__}",
            "sizes": list(trainer.reward_model.sizes),
            "members": trainer.settings.members,
            "width": trainer.settings.width,
            "action": "scaled to [-1, 1]" if isinstance(actions, Box) else "one-hot",
        },
    )


def load(
    kind: type[PreferenceTrainer], folder: Path, teacher: Teacher | None, device: str | torch.device
) -> PreferenceTrainer:
    """Build a trainer and put the saved state into it; ``teacher`` is for a run whose own is not saved."""
    config = read_config(folder)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise RunError(f"{config_path(folder)} is not of a run of this version of bigrad (wanted format {FORMAT!r})")
    settings = Settings.from_json(config.get("settings")).to_json()
    taught = config.get("teacher")
    state = load_tree(folder / CHECKPOINT)
    try:
        saved = People() if taught == _PEOPLE else SyntheticTeacher.from_json(taught) if taught else None
        trainer = kind(teacher=saved or teacher, device=device, **settings)
        trainer.teacher = saved or teacher
        _restore(trainer, state)
        if trainer.buffer.pictures:
            trainer.archive, buffer = PictureArchive(folder), trainer.buffer
            rows = trainer.agent.num_timesteps // buffer.n_envs
            trainer.archive.read(buffer.observations, buffer.size(), rows)
        labelled = int(state["labels"])
    except BigradError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise RunError(
            f"{folder / CHECKPOINT} does not fit its configuration ({error}): restore it or start anew"
        ) from error
    # Labels given after the last checkpoint count: none is asked for twice.
    trainer.store = open_labels(folder)
    if trainer.store.asked < labelled:
        raise RunError(
            f"{folder / LABELS} holds {trainer.store.asked} labels and the checkpoint was made with {labelled}: "
            f"restore it (with {LABELS}-wal, if there is one) or start anew"
        )
    return trainer


def _restore(trainer: PreferenceTrainer, state: dict[str, Any]) -> None:
    agent, buffer = trainer.agent, trainer.buffer
    trainer.reward_model.load_state_dict(state["reward_model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    agent.set_parameters(state["agent"], exact_match=True, device=agent.device)
    buffer.reward_model = trainer.reward_model if state["labelled_reward"] else None
    counters = state["counters"]
    agent.num_timesteps, agent.owed = int(counters["num_timesteps"]), int(counters["owed"])
    agent._n_updates, agent._episode_num = int(counters["_n_updates"]), int(counters["_episode_num"])  # noqa: SLF001
    if state.get("temperature") is not None and isinstance(agent, SquashedGaussianAgent):
        assert agent.log_ent_coef is not None
        agent.log_ent_coef.data.copy_(state["temperature"])
        agent.settle()
    if state.get("scale") is not None:
        for name in _MOMENTS:
            setattr(agent.moments, name, state["scale"][name])
    random = state["random"]
    trainer.random.bit_generator.state = random["own"]
    agent.action_space.np_random.bit_generator.state = random["action"]
    trainer.generators.state = random["global"]
    if random["teacher"] is not None and isinstance(trainer.teacher, SyntheticTeacher):
        trainer.teacher.generator.set_state(random["teacher"])
    trainer.rounds_done = int(state["rounds_done"])
    trainer.seconds = float(state["seconds"])
    trainer.history = list(state["history"])
    trainer.method.restore(state["method"])
    # After the reward model: what is worked out anew may differ in its last bit. Earlier runs did not keep "learnt".
    kept = {"learnt": buffer.learnt[:0], **state["buffer"]}
    for name in _arrays(buffer):
        array = getattr(buffer, name)
        if isinstance(array, Following):
            array.restore(kept[name])
        else:
            array[: len(kept[name])] = kept[name]
    buffer.pos, buffer.full = int(kept["pos"]), bool(kept["full"])
    _go_on(trainer, state["episode"])


def _arrays(buffer: RelabelledReplayBuffer) -> tuple[str, ...]:
    """Those that a checkpoint holds; pictures have files of their own."""
    return _ARRAYS[1:] if buffer.pictures else _ARRAYS


def _saved(buffer: RelabelledReplayBuffer, name: str) -> Any:
    array = getattr(buffer, name)
    return array.state() if isinstance(array, Following) else array[: buffer.size()]


def _scale(agent: SoftAgent) -> dict[str, Any] | None:
    """What observations are normalised by, as plain arrays."""
    moments = agent.moments
    return None if moments is None else {name: getattr(moments, name) for name in _MOMENTS}


def _episode(trainer: PreferenceTrainer) -> dict[str, Any] | None:
    """Where the running episode is, ``None`` where there is none or its environment tells no state of itself."""
    agent = trainer.agent
    if not trainer.place.between or agent.observation is None:
        return None
    states = [read_environment(env) for env in _environments(trainer)]
    if not states or None in states:
        return None
    return {
        "environment": states,
        "observation": agent.observation,
        "original": agent._last_original_obs,  # noqa: SLF001
        "start": agent._last_episode_starts,  # noqa: SLF001
        "warm_up_action": agent._last_random,  # noqa: SLF001
        "place": asdict(trainer.place),
    }


def _go_on(trainer: PreferenceTrainer, episode: dict[str, Any] | None) -> None:
    """Go on where the episode was, or begin a new one: the one that was cut short then ends where it was."""
    agent, buffer = trainer.agent, trainer.buffer
    if episode is None:
        if buffer.size():
            buffer.dones[buffer.pos - 1] = 1
            buffer.timeouts[buffer.pos - 1] = 1
        assert agent.env is not None
        agent.env.seed(trainer.settings.seed + agent.num_timesteps)  # not the starts that it had already
        return
    states = episode["environment"]
    if isinstance(states[0], dict):  # bigrad 0.1 knew one environment
        states, episode["place"]["episode_return"] = [states], [episode["place"]["episode_return"]]
    for env, state in zip(_environments(trainer), states, strict=True):
        env.reset()
        write_environment(env, state)
    agent._last_obs = episode["observation"]  # noqa: SLF001
    agent._last_original_obs = episode.get("original")  # noqa: SLF001
    agent._last_episode_starts = episode["start"]  # noqa: SLF001
    agent._last_random = episode["warm_up_action"]  # noqa: SLF001
    trainer.place = Place(**episode["place"])


def _environments(trainer: PreferenceTrainer) -> list[gymnasium.Env[Any, Any]]:
    """Those of this process."""
    assert trainer.agent.env is not None
    envs = trainer.agent.env.unwrapped
    return envs.envs if isinstance(envs, DummyVecEnv) else []


def write_result(folder: Path, result: Result, history: list[dict[str, Any]]) -> None:
    """Write ``result.json`` and ``curves.png``."""
    write_json(folder / "result.json", result.to_json())
    draw_curves(folder / "curves.png", history, result)
