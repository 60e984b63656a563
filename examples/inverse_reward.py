"""Read a reward off behaviour: the lower level plans in a grid, the upper level makes the plan look like an expert's.

python examples/inverse_reward.py [--quick]
"""

import argparse

import torch

from bigrad.layers import SoftBellman

SIZE, GOAL = 5, 24  # a 5 x 5 grid, its goal in the lower right corner


def grid() -> torch.Tensor:
    """Moves up, down, left, right that slip to a random neighbour one time in ten; the goal ends the episode."""
    transition = torch.zeros(SIZE**2, 4, SIZE**2, dtype=torch.float64)
    for state in range(SIZE**2):
        row, column = divmod(state, SIZE)
        ahead = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        places = [SIZE * min(max(r, 0), SIZE - 1) + min(max(c, 0), SIZE - 1) for r, c in ahead]
        for action, place in enumerate(places):
            transition[state, action, place] += 0.9
            for other in places:
                transition[state, action, other] += 0.025
    transition[GOAL] = 0
    return transition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    steps = 30 if parser.parse_args().quick else 300

    plan = SoftBellman(grid(), discount=0.95, temperature=0.3)
    true_reward = torch.full((SIZE**2,), -0.1, dtype=torch.float64)
    true_reward[[6, 7, 8, 17]] = -1.0  # puddles
    true_reward[GOAL] = 2.0
    expert = plan(true_reward[:, None].expand(-1, 4)).policy

    reward = torch.zeros(SIZE**2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([reward], lr=0.05)
    for step in range(steps + 1):
        policy = plan(reward[:, None].expand(-1, 4)).policy
        loss = -(expert * policy.log()).sum(1).mean()
        if step % (steps // 5) == 0:
            apart = (policy - expert).abs().max()
            print(f"step {step:3d}  cross-entropy {loss:.4f}  largest difference of policies {apart:.3f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    print("learnt reward, shifted to the true one's mean (puddles and goal stand out):")
    for row in (reward.detach() - reward.detach().mean() + true_reward.mean()).reshape(SIZE, SIZE):
        print("  ".join(f"{value:6.2f}" for value in row))


if __name__ == "__main__":
    main()
