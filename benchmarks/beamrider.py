"""Preferences on pictures: BeamRider end to end, and the memory of its pictures beside stable-baselines3's buffer.

    python benchmarks/beamrider.py [--quick]

The run is small for one core (networks, labels and rounds far below the preset's), with a buffer that is full after
8,000 of the 20,000 steps: from then on its memory has to stay where it is. Resident memory is looked at every second; a
row has the most of it from its number of steps to the next, and what it was at the first of these looks, once the
allocator had handed back what nobody uses. A round takes more for a while, by the length of the episodes it looks at.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time

import numpy as np
from gymnasium import spaces
from harness import Row, child, forget_peak, memory, one_thread, options, report, verdict

from bigrad.rlhf import PreferenceTrainer, RelabelledReplayBuffer, read_preset

SHAPE, ACTIONS = (4, 84, 84), spaces.Discrete(9)  # of the game
SMALL = {
    "steps": 20_000,
    "buffer": 8_000,
    "warm_up": 2_000,
    "rounds": 2,
    "labels": 140,
    "on_policy_steps": 2_400,  # two episodes
    "first_upper_steps": 40,
    "upper_steps": 15,
    "width": 32,
    "units": 128,
    "batch": 32,
    "upper_batch": 16,
    "transitions": 1_024,
    "opponents": 128,
    "episodes": 5,
}
TINY = {
    "steps": 400,
    "buffer": 200,
    "warm_up": 100,
    "rounds": 2,
    "labels": 12,
    "on_policy_steps": 40,
    "first_upper_steps": 2,
    "upper_steps": 1,
    "segment": 5,
    "upper_batch": 4,
    "episodes": 1,
}
STEADY = 1.05  # the memory in use at the end over that of the first rows with a full buffer
COLUMNS = ("MB in use", "MB")


def run(quick: bool) -> list[Row]:
    """Resident memory in the course of a run, and what it learnt."""
    chosen = read_preset("beamrider") | SMALL | (TINY if quick else {})
    trainer = PreferenceTrainer(**chosen, device="cpu")
    width = chosen["steps"] // 10
    used, most = dict[int, int](), dict[int, int]()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            place = trainer.agent.num_timesteps // width
            if place not in used:
                used[place] = forget_peak()
            most[place] = max(most.get(place, 0), memory()[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = trainer.learn(out=folder)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    rows: list[Row] = [
        {"steps": width * place, "MB in use": used[place] / 1e6, "MB": most[place] / 1e6}
        for place in sorted(most)
        if place < 10
    ]
    full = [row for row in rows if row["steps"] >= chosen["buffer"]]
    half = -(-len(full) // 2)
    if full[half:]:
        growth, peak = (max(row[key] for row in full[half:]) / max(row[key] for row in full[:half]) for key in COLUMNS)
        rows.append({"steps": "later half of the full buffer over the earlier", "most": peak, "in use": growth})
        rows[-1] |= {"target": STEADY, "verdict": verdict(growth, STEADY)}
    learnt = ("true_return", "random_return", "preference_accuracy", "labels", "response_ratio", "response_agreement")
    rows.append({"steps": result.steps, "seconds": seconds} | {name: getattr(result, name) for name in learnt})
    return rows


def fill(way: str, count: int) -> Row:
    """The growth of the resident peak of a buffer that takes pictures of the game's shape."""
    from stable_baselines3.common.buffers import ReplayBuffer

    before = forget_peak()
    space = spaces.Box(0, 255, SHAPE, np.uint8)
    buffer = {"bigrad": RelabelledReplayBuffer, "stable-baselines3": ReplayBuffer}[way](count, space, ACTIONS, "cpu")
    seen = np.random.default_rng(0).integers(0, 256, (1, *SHAPE), dtype=np.uint8)
    for step in range(count):
        after = np.roll(seen, 1, axis=-1)
        buffer.add(seen, after, np.zeros((1, 1), np.int64), np.zeros(1), np.array([step % 1000 == 999]), [{}])
        seen = after
    return {"MB": (memory()[1] - before) / 1e6}


def buffers(quick: bool) -> list[Row]:
    """Megabytes of a full buffer, each in a process of its own."""
    count = 500 if quick else 100_000
    rows: list[Row] = [
        {"way": way, "transitions": count} | child(__file__, "--fill", way, count, timeout=1800)
        for way in ("stable-baselines3", "bigrad")
    ]
    if all("MB" in row for row in rows):
        ratio = rows[1]["MB"] / rows[0]["MB"]
        rows[1] |= {"over the first": ratio, "target": 1.3, "verdict": verdict(ratio, 1.3)}
    return rows


TABLES = {"run": run, "buffers": buffers}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        one_thread()
        print(json.dumps(fill(sys.argv[2], int(sys.argv[3]))))
    else:
        report(options(__doc__, "beamrider"), TABLES)
