"""Pictures: kept once and as bytes, judged by filters of all members at once, and learnt from by every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from bigrad.errors import InputError, RunError, UnsupportedError
from bigrad.rlhf import (
    Features,
    Pairs,
    PictureArchive,
    PictureEnsemble,
    PreferenceStore,
    PreferenceTrainer,
    RelabelledReplayBuffer,
    totals_at,
)

from . import picture_environments, tiny
from .picture_environments import DOT, PUSHED, WALL

pytestmark = pytest.mark.usefixtures("unsynced", "unpainted")
picture_environments.register()

SHAPE = (2, 36, 40)
SPACE = spaces.Box(0, 255, SHAPE, np.uint8)
SMALL: dict[str, Any] = {"units": 8, "batch": 4, "members": 2, "episodes": 1}


def model(heads: bool = True, members: int = 3) -> PictureEnsemble:
    return PictureEnsemble(SHAPE, 3, members, 8, torch.Generator().manual_seed(0), heads, filters=4)


def pictures(*lead: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (*lead, *SHAPE), dtype=np.uint8))


def choices(*lead: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.arange(int(np.prod(lead))) % 3, 3).float().reshape(*lead, 3)


@pytest.mark.parametrize("heads", [True, False])
def test_members_are_evaluated_as_if_one_by_one(heads: bool) -> None:
    reward, seen, action = model(heads), pictures(2, 5), choices(2, 5)
    found = reward.raw(seen, action)
    for member in range(3):
        hidden = seen.reshape(10, *SHAPE).double() / 255
        for stride, weight, offset in zip((4, 2, 1), reward.filters, reward.offsets, strict=True):
            own = slice(4 * member, 4 * member + 4)
            hidden = torch.nn.functional.conv2d(hidden, weight[own].double(), offset[own].double(), stride)
            hidden = torch.nn.functional.leaky_relu(hidden)
        hidden = hidden.flatten(1) if heads else torch.cat([hidden.flatten(1), action.reshape(10, 3).double()], 1)
        for weight, bias in zip(reward.weights[:-1], reward.biases[:-1], strict=True):
            hidden = torch.nn.functional.leaky_relu(hidden @ weight[member].double() + bias[member, 0].double())
        out = hidden @ reward.weights[-1][member].double() + reward.biases[-1][member, 0].double()
        expected = (out * action.reshape(10, 3)).sum(1) if heads else out.squeeze(1)
        torch.testing.assert_close(found[member].double(), expected.reshape(2, 5), rtol=1e-5, atol=1e-6)


def test_the_reward_at_a_policy_is_its_mean_over_it() -> None:
    reward, seen, chance = model(), pictures(4), torch.rand(4, 3).softmax(-1)
    each = torch.stack([reward.raw(seen, torch.eye(3)[[action] * 4]) for action in range(3)], -1)
    torch.testing.assert_close(reward.raw(seen, chance), (each * chance).sum(-1))


def test_the_reward_is_linear_in_its_features() -> None:
    reward, seen, action = model(), pictures(60), choices(60)
    features = reward.features(seen, action).detach().double()
    values = reward.raw(seen, action).detach().double().T
    assert features.shape == (60, 3 * (3 * 8 + 1))
    assert float((features[:, 24::25].sum(1) - 1).abs().max()) == 0  # the constant, at the action's own place
    weight = torch.zeros(75, 3, dtype=torch.float64)
    for member in range(3):
        for action_ in range(3):
            at = 25 * action_ + 8 * member
            weight[at : at + 8, member] = reward.weights[-1][member, :, action_].double()
            weight[25 * action_ + 24, member] = reward.biases[-1][member, 0, action_].double()
    torch.testing.assert_close(features @ weight, values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [True, False])
def test_padding_counts_nothing_whatever_its_picture_shows(heads: bool) -> None:
    reward, seen, action = model(heads), pictures(2, 6), choices(2, 6)
    action[1, 4:] = torch.nan
    totals = reward.totals(seen, action)
    torch.testing.assert_close(totals[:, 1], reward.raw(seen[1, :4], action[1, :4]).sum(-1))
    assert torch.isfinite(totals).all()


@pytest.mark.parametrize("wrong", [(3, 36, 40), (2, 40, 36), (36, 40, 2)])
def test_another_picture_is_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"wanted \(\*, 2, 36, 40\) and \(\*, 3\)"):
        model()(torch.zeros(5, *wrong, dtype=torch.uint8), choices(5))
    with pytest.raises(InputError, match=r"\[35, 80\] pixels .*at least 36"):
        PictureEnsemble((3, 35, 80), 3)


def both_buffers(
    capacity: int, steps: int, envs: int, ends: float = 0.2
) -> tuple[RelabelledReplayBuffer, ReplayBuffer]:
    """Ours and theirs, told the same."""
    random = np.random.default_rng(capacity + steps)
    kinds: tuple[type[ReplayBuffer], ...] = (RelabelledReplayBuffer, ReplayBuffer)
    ours, theirs = (kind(capacity * envs, SPACE, spaces.Discrete(3), "cpu", envs) for kind in kinds)
    seen = random.integers(0, 256, (envs, *SHAPE), dtype=np.uint8)
    for _ in range(steps):
        following, fresh = random.integers(0, 256, (2, envs, *SHAPE), dtype=np.uint8)
        done, reward = random.random(envs) < ends, random.normal(size=envs).astype(np.float32)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(cut)} for cut in done & (random.random(envs) < 0.5)]
        for buffer in (ours, theirs):
            buffer.add(seen, following, random.integers(0, 3, (envs, 1)), reward, done, infos)
        seen = np.where(done[:, None, None, None], fresh, following)
    assert isinstance(ours, RelabelledReplayBuffer)
    return ours, theirs


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize(("capacity", "steps"), [(20, 1), (20, 12), (20, 20), (20, 33), (7, 50), (1, 3)])
def test_what_follows_is_what_stable_baselines_keeps_twice(capacity: int, steps: int, envs: int) -> None:
    ours, theirs = both_buffers(capacity, steps, envs)
    rows, columns = np.divmod(np.arange(ours.count), envs)
    assert (ours.next_observations[rows, columns] == theirs.next_observations[rows, columns]).all()
    np.random.seed(0)  # noqa: NPY002  # theirs
    found = ours.sample(40)
    np.random.seed(0)  # noqa: NPY002
    wanted = theirs.sample(40)
    for name in ("observations", "next_observations", "dones", "rewards"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))
    assert found.observations.dtype == torch.uint8


def test_pictures_take_half_the_memory_of_stable_baselines_buffer() -> None:
    ours, theirs = both_buffers(400, 400, 1, ends=1 / 100)
    arrays = ("observations", "actions", "rewards", "dones", "timeouts", "next_observations")
    bytes_of = [sum(getattr(buffer, name).nbytes for name in arrays) for buffer in (ours, theirs)]
    assert bytes_of[0] < 0.52 * bytes_of[1]


def test_totals_at_places_are_those_of_segments() -> None:
    buffer = both_buffers(60, 60, 1)[0]
    buffer.after_end = "zero"
    places = buffer.segment(buffer.segment_starts(5), 5)
    assert (places < 0).any()
    torch.testing.assert_close(totals_at(model(), buffer, places), model().totals(*buffer.steps(places)).detach())


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_store_keeps_pictures_small_and_gives_them_back(on_disk: bool, tmp_path: Path) -> None:
    seen = torch.zeros(4, 2, 5, *SHAPE, dtype=torch.uint8)
    seen[:, :, :, 0, 10:20, 10:20] = pictures(4, 2, 5)[..., 0, 10:20, 10:20]
    given = Pairs(seen, choices(4, 2, 5), np.zeros((4, 2)))
    given.action[2, 1, 3:] = torch.nan
    store = PreferenceStore(tmp_path / "labels.sqlite" if on_disk else None)
    store.add(given, np.array([0.0, 1.0, 0.5, 1.0]), step=7)
    blobs = store.select("sum(length(observation)) from preference")[0][0]
    assert blobs < seen.nbytes / 5
    again = PreferenceStore()
    again.extend(PreferenceStore(tmp_path / "labels.sqlite") if on_disk else store)
    for found, label in (store.load(), again.load()):
        assert torch.equal(found.observation, given.observation)
        assert found.observation.dtype == torch.uint8
        assert torch.equal(found.action.nan_to_num(9.0), given.action.nan_to_num(9.0))
        assert label.tolist() == [0.0, 1.0, 0.5, 1.0]
    store.connection.execute("update preference set observation = substr(observation, 1, 60) where id = 2")
    with pytest.raises(RunError, match="damaged pair"):
        store.load()


def test_padding_that_an_earlier_bigrad_wrote_is_understood() -> None:
    store, observation, action = PreferenceStore(), torch.ones(1, 2, 5, 3), torch.ones(1, 2, 5, 1)
    observation[0, 1, 3:], action[0, 1, 3:] = torch.nan, 0
    store.add(Pairs(observation, action, np.zeros((1, 2))), np.array([1.0]), step=7)
    found = store.load()[0]
    assert (found.action.isnan().squeeze(-1) == observation.isnan().any(-1)).all()
    assert (found.observation[0, 1, 3:] == 0).all()


@pytest.mark.parametrize(
    ("env", "method"),
    [(DOT, "drlhf"), (DOT, "softdqn"), (DOT, "random"), (WALL, "sobirl"), (PUSHED, "sobirl"), (WALL, "pbrl")],
)
def test_every_method_learns_from_pictures(env: str, method: str) -> None:
    run = tiny.trainer(env, method=method, **SMALL)
    result = run.learn()
    assert run.buffer.observations.dtype == np.uint8
    assert run.buffer.observations.shape[2:] == SHAPE
    assert result.labels == (tiny.LABELS if run.settings.learns_reward else 0)
    if method in ("sobirl", "pbrl"):
        assert result.response_ratio is not None
        assert 0 < result.response_ratio <= 0.5
    if env == WALL:
        pairs = run.store.load()[0]
        assert pairs.action.isnan().any()
        assert pairs.observation.dtype == torch.uint8


def test_one_look_gives_the_mean_over_the_policy() -> None:
    run = tiny.trainer(DOT, units=8)
    features, seen = Features(run.agent, run.reward_model, 2), pictures(5)
    torch.testing.assert_close(features.expected(seen), run.agent.mean(features, seen, 2))


@pytest.mark.filterwarnings("ignore:this run of sobirl had no response")
def test_the_reward_model_finds_the_middle() -> None:
    """Labels of segments that differ in how far the square is from the middle."""
    fit = {"first_upper_steps": 40, "reward_step": 1e-2}
    run = tiny.trainer(DOT, **fit, first_share=1.0, warm_up=60, steps=64, **SMALL)
    result = run.learn()
    assert result.preference_accuracy is not None
    assert result.preference_accuracy > 0.85


def test_a_run_on_pictures_is_resumed(tmp_path: Path) -> None:
    straight = tiny.trainer(DOT, **SMALL)
    straight.learn(out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(DOT, **SMALL, teacher=tiny.Stops(3)).learn(out=tmp_path / "run")
    resumed = PreferenceTrainer.load(tmp_path / "run")
    assert resumed.buffer.count == 60
    for kept in ("steps", "next_steps"):
        found, wanted = (getattr(run.buffer, kept)(np.arange(60)) for run in (resumed, straight))
        assert all(map(torch.equal, found, wanted))
    assert resumed.learn(out=tmp_path / "run").labels == tiny.LABELS


@pytest.mark.parametrize(("capacity", "steps"), [(50, 23), (50, 50), (20, 50), (7, 50)])
def test_pictures_are_written_once_and_read_back(capacity: int, steps: int, tmp_path: Path) -> None:
    random, written = np.random.default_rng(0), []
    seen = random.integers(0, 256, (steps, 2, 1, 4, 5), dtype=np.uint8)
    ring, archive = np.zeros((capacity, 2, 1, 4, 5), np.uint8), PictureArchive(tmp_path, rows=6)
    for total in range(1, steps + 1):
        ring[(total - 1) % capacity] = seen[total - 1]
        size = min(total, capacity)
        if total % 4 == 0 or total == steps:
            before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").glob("*")}
            archive.write(ring, size, total)
            archive.forget(total - size)
            after = {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").glob("*")}
            written.append(sum(before.get(path) != time for path, time in after.items()))
            again, other = np.zeros_like(ring), PictureArchive(tmp_path, rows=6)
            other.read(again, size, total)
            assert (again[:size] == ring[:size]).all()
            assert other.full == archive.full == total // 6
    assert max(written) <= 2  # four rows touch two files of six
    assert len(after) <= -(-capacity // 6) + 1
    path = sorted(after)[-1]
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(RunError, match=r"pictures/\d+\.zlib is missing or damaged"):
        PictureArchive(tmp_path, rows=6).read(ring, size, total)


def test_rows_of_a_run_that_was_lost_are_written_anew(tmp_path: Path) -> None:
    """A checkpoint of 8 rows, 4 more rows, a crash: what comes instead of the 4 rows is not what was there."""
    seen, archive = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1, 1), PictureArchive(tmp_path, rows=6)
    archive.write(seen, 12, 12)
    resumed, found = PictureArchive(tmp_path, rows=6), np.zeros_like(seen)
    resumed.read(found, 8, 8)
    found[8:] = 100
    resumed.write(found, 12, 12)
    PictureArchive(tmp_path, rows=6).read(seen, 12, 12)
    assert seen.ravel().tolist() == [*range(8), *[100] * 4]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Small", r"pictures of 35 x 80 pixels; wanted at least 36 on each side: .*ResizeObservation"),
        ("Flat", r"observations of shape \(84, 84\); wanted a vector, or a picture .*ReshapeObservation"),
        ("Float", r"pictures of float32 between 0\.0 and 1\.0; wanted bytes \(uint8\) from 0 to 255"),
        ("Dim", r"pictures of uint8 between 0 and 200; wanted bytes"),
    ],
)
def test_pictures_that_are_not_served_say_what_is_wanted(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        tiny.trainer(f"Tiny/{name}Picture-v0")


def test_pictures_are_not_normalised_twice() -> None:
    with pytest.raises(InputError, match="shows pictures, which are scaled anyway; wanted false"):
        tiny.trainer(DOT, normalise=True)
