"""imitation's own reward training on given pairs, served line by line; see ``served.py`` and ``rlhf_step.py``.

Each member of the ensemble is a network with a trainer of its own, as imitation's EnsembleTrainer has them, but all on
the same pairs. A step is its loss on all of them, backward and the optimizer; the answer has its seconds and the
members' losses before it. ``whole`` is the same through the public ``train``, with its data loader and logs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402  # after the core is chosen
import torch  # noqa: E402
from allocator import keep_freed_memory  # noqa: E402
from gymnasium import spaces  # noqa: E402
from imitation.algorithms import preference_comparisons as comparisons  # noqa: E402
from imitation.data.types import TrajectoryWithRew  # noqa: E402
from imitation.rewards.reward_nets import BasicRewardNet  # noqa: E402

OUTPUT = sys.stdout
sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # its logs and bars, as long as this runs
torch.set_num_threads(1)
keep_freed_memory()
LR = 3e-3


class Member:
    """One network and its trainer, with the given weights."""

    def __init__(self, weights: list[np.ndarray], biases: list[np.ndarray], sizes: tuple[int, int], pairs: int) -> None:
        observation, action = (spaces.Box(-np.inf, np.inf, (size,), np.float32) for size in sizes)
        network = BasicRewardNet(observation, action, hid_sizes=(32, 32), activation=torch.nn.LeakyReLU)
        linear = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
        with torch.no_grad():
            for layer, weight, bias in zip(linear, weights, biases, strict=True):
                layer.weight.copy_(torch.from_numpy(weight.T))
                layer.bias.copy_(torch.from_numpy(bias[0]))
        self.model = comparisons.PreferenceModel(network)
        self.loss = comparisons.CrossEntropyRewardLoss()
        self.trainer = comparisons.BasicRewardTrainer(
            self.model, self.loss, np.random.default_rng(0), batch_size=pairs, lr=LR
        )

    def step(self, pairs: list, preference: np.ndarray) -> float:
        """One step; the loss before it."""
        self.trainer.optim.zero_grad()
        loss = self.loss(pairs, preference, self.model).loss
        loss.backward()
        self.trainer.optim.step()
        return float(loss)


def main() -> None:
    """Answer requests until the input ends."""
    given = dict(np.load(sys.argv[1]))
    count, _, length, _ = given["observation"].shape
    sizes = given["observation"].shape[-1], given["action"].shape[-1]

    def trajectory(pair: int, side: int) -> TrajectoryWithRew:
        seen, acted = given["observation"][pair, side], given["action"][pair, side]
        ended = np.concatenate([seen, seen[-1:]])
        return TrajectoryWithRew(ended, acted, None, True, np.zeros(length, np.float32))

    pairs = [(trajectory(pair, 0), trajectory(pair, 1)) for pair in range(count)]
    preference = 1 - given["label"]  # that the first one is better
    data = comparisons.PreferenceDataset()
    data.push(pairs, preference)
    members = [
        Member([given[f"weight{k}"][m] for k in range(3)], [given[f"bias{k}"][m] for k in range(3)], sizes, count)
        for m in range(len(given["weight0"]))
    ]
    for line in sys.stdin:
        request = json.loads(line)
        try:
            start = time.perf_counter()
            if request["whole"]:
                for member in members:
                    member.trainer.train(data)
                found: list[float] = []
            else:
                found = [member.step(pairs, preference) for member in members]
            answer = {"seconds": time.perf_counter() - start, "found": found}
        except Exception as error:  # noqa: BLE001  # a peer may raise anything: that is a result
            answer = {"failure": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}"}
        print(json.dumps(answer), file=OUTPUT, flush=True)


if __name__ == "__main__":
    main()
