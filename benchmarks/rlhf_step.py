"""One upper step of RLHF beside imitation's, and whole runs beside plain stable-baselines3 SAC.

    .venv/bin/python benchmarks/rlhf_step.py [--quick | --full]

The upper step is the loss of 64 pairs of 50 steps under three networks of 32 and 32 units, backward, and AdamW;
imitation runs its own classes in an environment of its own on the same pairs from the same weights, and the losses are
compared. Both processes keep the memory that they free, as a training run does. A run is a process of its own with
equal steps, networks, batches and learning rates. The three kinds share one core at the same time, so that a slow
moment of the machine hits all of them, and each counts the processor's seconds of its one thread. A short run has a
fifth of the default's steps, labels and rounds; ``--full`` takes all of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import torch
from harness import Case, Row, child, interleave, one_thread, options, relative_error, report, verdict
from served import Ask, Remote, found_of, served
from torch import Tensor

from bigrad.rlhf import Pairs, PreferenceTrainer, RewardEnsemble, upper_step

PAIRS, STEPS, MEMBERS, WIDTH = 64, 50, 3, 32
FASTER = 20.0  # times imitation's step
OVER_SAC = {"sobirl": 1.25, "drlhf": 1.15}
ENVIRONMENTS = ("Pendulum-v1", "HalfCheetah-v5")
SIZES = {"Pendulum-v1": (3, 1), "HalfCheetah-v5": (17, 6)}


def drawn(sizes: tuple[int, int], count: int) -> tuple[Pairs, Tensor]:
    """Pairs and labels of a random reward."""
    generator = torch.Generator().manual_seed(0)
    observation, action = (torch.randn(count, 2, STEPS, size, generator=generator) for size in sizes)
    returns = observation.sum((-1, -2))
    return Pairs(observation, action.tanh(), returns.numpy()), (returns[:, 1] > returns[:, 0]).float()


def ours(reward: RewardEnsemble, pairs: Pairs, label: Tensor) -> Callable[[Any], float]:
    """The library's own step; the mean loss before it."""
    optimizer = torch.optim.AdamW(reward.parameters(), lr=3e-3, weight_decay=1e-2, fused=True)
    return lambda _: upper_step(reward, optimizer, pairs, label, (), 1.0).loss


def upper(quick: bool) -> list[Row]:
    """Milliseconds of a step, for the observations and actions of both environments."""
    rows: list[Row] = []
    for env, sizes in SIZES.items():
        pairs, label = drawn(sizes, 4 if quick else PAIRS)
        reward = RewardEnsemble(*sizes, MEMBERS, WIDTH, torch.Generator().manual_seed(1))
        arrays = {"observation": pairs.observation, "action": pairs.action, "label": label}
        for kind, group in (("weight", reward.weights), ("bias", reward.biases)):
            arrays |= {f"{kind}{k}": part.detach() for k, part in enumerate(group)}
        with served("imitation", "imitation_peer.py", arrays) as ask:
            rows += upper_rows(env, ask, ours(reward, pairs, label), 3 if quick else 25)
    return rows


def upper_rows(env: str, ask: Ask, step: Callable[[Any], float], repetitions: int) -> list[Row]:
    """The rows of one environment. Both start from the same weights: the first losses have to agree."""
    first = step(None)
    try:
        theirs = torch.tensor(ask(whole=False)["found"], dtype=torch.float64).mean()
        differ = relative_error(first, theirs)
    except RuntimeError:  # its rows say why
        differ = float("nan")
    cases = [
        Case("bigrad", {"step": step}),
        Case("imitation, loss, backward, optimizer", {"step": lambda _: Remote.of(ask(whole=False))}),
        Case("imitation, its train()", {"step": lambda _: Remote.of(ask(whole=True))}),
    ]
    interleave(cases, repetitions, 30.0)
    rows: list[Row] = []
    for case in cases:
        row: Row = {"sizes of": env, "way": case.name}
        if case.failure:
            rows.append(row | {"failure": case.failure})
            continue
        row |= {"ms": case.milliseconds("step"), "spread": [*case.spread("step")]}
        if case is not cases[0]:
            ratio = case.milliseconds("step") / cases[0].milliseconds("step")
            row |= {"times ours": ratio, "losses differ by": differ, "target": FASTER}
            row["verdict"] = verdict(FASTER, ratio) if differ < 1e-5 else "losses differ"
        assert found_of(case.last) is not None
        rows.append(row)
    return rows


def settings(env: str, full: bool, quick: bool) -> dict[str, Any]:
    """Of a run: the defaults, or a fifth of what grows with the steps."""
    if full:
        return {"env": env, "steps": 8000, "labels": 200, "rounds": 10, "first_upper_steps": 300, "warm_up": 1000}
    steps = 400 if quick else 1600
    return {"env": env, "steps": steps, "labels": 40, "rounds": 2, "first_upper_steps": 60, "warm_up": steps // 8}


def one_run(method: str, chosen: dict[str, Any]) -> Row:
    """A run in this process: seconds of the processor that the agent's ``learn`` takes.

    All that a preference run does while it learns happens in there; what it evaluates afterwards plain SAC does not.
    """
    one_thread()
    if chosen["steps"] <= 400:
        chosen |= {"on_policy_steps": 50, "upper_steps": 5}
    trainer = PreferenceTrainer(method="sac" if method == "plain SAC" else method, episodes=1, **chosen)
    if method == "plain SAC":
        import gymnasium
        from stable_baselines3 import SAC

        own = trainer.settings
        agent = SAC(
            "MlpPolicy",
            gymnasium.make(own.env),
            learning_rate=own.lr,
            batch_size=own.batch,
            gamma=own.discount,
            learning_starts=own.warm_up,
            buffer_size=own.steps,
            ent_coef=own.temperature,
            policy_kwargs={"net_arch": [own.units, own.units]},
            seed=0,
        )
        spent = timed(agent)
        agent.learn(own.steps)
    else:
        spent = timed(trainer.agent)
        trainer.learn()
    return spent


def timed(agent: Any) -> Row:
    """Filled when ``agent.learn`` is done."""
    learn, spent = agent.learn, {}

    def watched(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        result = learn(*args, **kwargs)
        spent["processor"] = time.process_time() - began
        return result

    agent.learn = watched
    return spent


def runs(quick: bool, full: bool) -> list[Row]:
    """Three kinds of run, side by side on the core that this process keeps to."""
    rows: list[Row] = []
    for env in ENVIRONMENTS[: 1 if quick else None]:
        given = json.dumps(settings(env, full, quick))
        found: dict[str, list[Row]] = {name: [] for name in ("plain SAC", *OVER_SAC)}
        for _ in range(1 if quick else 3 if full else 2):
            with ThreadPoolExecutor(len(found)) as pool:
                answers = pool.map(lambda name: child(__file__, "run", name, given, timeout=3600.0), found)  # noqa: B023
                for taken, answer in zip(found.values(), answers, strict=True):
                    taken.append(answer)
        base = [taken.get("processor") for taken in found["plain SAC"]]
        for name, taken in found.items():
            row: Row = {"env": env, "steps": json.loads(given)["steps"], "way": name}
            failures = [answer["failure"] for answer in taken if "failure" in answer]
            if failures or None in base:
                rows.append(row | {"failure": (failures or ["plain SAC failed"])[0]})
                continue
            row["s"] = median(answer["processor"] for answer in taken)
            ratios = [answer["processor"] / plain for answer, plain in zip(taken, base, strict=True)]
            row |= {"over plain SAC": median(ratios), "each": ratios}
            if name in OVER_SAC:
                row |= {"target": OVER_SAC[name], "verdict": verdict(median(ratios), OVER_SAC[name])}
            rows.append(row)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        print(json.dumps(one_run(sys.argv[2], json.loads(sys.argv[3]))))
    else:
        chosen = options(__doc__, "rlhf_step")
        report(chosen, {"upper": upper, "runs": lambda quick: runs(quick, chosen.full)})
