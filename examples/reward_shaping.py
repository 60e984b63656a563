"""Reward shaping: a bonus on the cells of a maze, found by bilevel gradients, speeds up a learner that never saw it.

The lower level plans softly in the maze, the upper level wants it to arrive soon. Then Q-learning, which knows neither
the maze nor the planner, is run with and without the bonus; both are judged by the steps of their episodes.

python examples/reward_shaping.py [--quick] [--seeds 10] [--out runs/reward_shaping.json]
"""

import argparse
import json
import platform
import random
import sys
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure

import bigrad
from bigrad.mdp import SoBiRL, descend
from bigrad.problems import ReferenceProblem, reward_shaping

LONGEST = 200  # steps of an episode


def learn(problem: ReferenceProblem, reward: torch.Tensor, episodes: int, seed: int) -> list[int]:
    """Q-learning that explores one time in ten; the steps of each episode."""
    draw = random.Random(seed)
    moves, pay = problem.transition_at(problem.init), reward.tolist()
    ends = (moves.sum((-2, -1)) == 0).tolist()
    chances = [[[(state, p) for state, p in enumerate(row) if p > 0] for row in rows] for rows in moves.tolist()]
    value = [[0.0] * 4 for _ in ends]
    lengths = []
    for _ in range(episodes):
        state, steps = int(problem.start.argmax()), 0
        while not ends[state] and steps < LONGEST:
            best = max(value[state])
            greedy = [action for action in range(4) if value[state][action] == best]
            action = draw.randrange(4) if draw.random() < 0.1 else draw.choice(greedy)
            following, weights = zip(*chances[state][action], strict=True)
            (ahead,) = draw.choices(following, weights)
            future = pay[ahead][0] if ends[ahead] else max(value[ahead])
            goal = pay[state][action] + problem.discount * future
            value[state][action] += 0.5 * (goal - value[state][action])
            state, steps = ahead, steps + 1
        lengths.append(steps)
    return lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 steps, 2 seeds")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/reward_shaping.json"), help="the pictures go beside it")
    settings = parser.parse_args()
    steps, seeds, episodes = (20, 2, 40) if settings.quick else (200, settings.seeds, 150)

    problem = reward_shaping()
    run = descend(problem, SoBiRL(), problem.init, steps=steps, optimizer=lambda p: torch.optim.Adam(p, lr=0.1))
    print(f"the planner's E[discount^T]: {-run.history.value[0]:.3f} without and {-run.history.value[-1]:.3f} with "
          f"bonus; no policy has more than {-(problem.bound or 0.0):.3f}")  # fmt: skip

    curves = {}
    for name, x in (("without bonus", problem.init), ("with bonus", run.x)):
        lengths = [learn(problem, problem.reward(x), episodes, seed) for seed in range(seeds)]
        curves[name] = [mean(episode) for episode in zip(*lengths, strict=True)]
        early, late = mean(curves[name][:20]), mean(curves[name][-20:])
        print(f"Q-learning {name:13}: {early:.0f} steps an episode in the first 20, {late:.0f} in the last 20")

    settings.out.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve, label=name)
    axes.set(xlabel="episode", ylabel=f"steps to the goal, at most {LONGEST}", title=f"Q-learning, {seeds} seeds")
    axes.legend()
    figure.savefig(settings.out.with_suffix(".png"), dpi=100)
    policy = problem.follower(run.x)[0].policy
    picture = settings.out.with_name(f"{settings.out.stem}_policy.png")
    problem.render(policy, problem.reward(run.x)).savefig(picture, dpi=100)
    record = {
        "planner": {"before": run.history.value[0], "after": run.history.value[-1], "bound": problem.bound},
        "q_learning_steps": curves,
        "size": {"steps": steps, "seeds": seeds, "episodes": episodes},
        "versions": {"python": platform.python_version(), "bigrad": bigrad.__version__, "torch": torch.__version__},
        "command": " ".join(["python", *sys.argv]),
    }
    settings.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"pictures in {settings.out.with_suffix('.png')} and {picture}")


if __name__ == "__main__":
    main()
