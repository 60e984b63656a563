"""Measure an environment's ceiling: SAC on the true reward, several seeds, and put it into the package's data.

    python benchmarks/ceilings.py --env Pendulum-v1 --steps 20000 --seeds 5

A seed that has its result.json already is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CEILINGS = Path(__file__).resolve().parent.parent / "bigrad" / "rlhf" / "ceilings.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/ceilings"))
    options = parser.parse_args()
    results = []
    for seed in range(options.seeds):
        folder = options.runs / f"{options.env.replace('/', '-')}-{options.steps}-seed{seed}"
        if not (folder / "result.json").exists():
            run = ["--env", options.env, "--method", "sac", "--steps", options.steps, "--seed", seed, "--out", folder]
            subprocess.run([sys.executable, "-m", "bigrad", "rlhf", *map(str, run)], check=True)
        results.append(json.loads((folder / "result.json").read_text()))
    returns = [result["true_return"] for result in results]
    entry = {
        "random_return": results[0]["random_return"],
        "ceiling_return": sum(returns) / len(returns),
        "method": "sac",
        "steps": options.steps,
        "seeds": [result["seed"] for result in results],
        "returns": returns,
        "episodes": results[0]["episodes"],
        "versions": results[0]["versions"],
        "hardware": results[0]["hardware"],
        "command": f"python {Path(__file__).parent.name}/{Path(__file__).name} "
        f"--env {options.env} --steps {options.steps} --seeds {options.seeds}",
    }
    ceilings = json.loads(CEILINGS.read_text()) | {options.env: entry}
    CEILINGS.write_text(json.dumps(dict(sorted(ceilings.items())), indent=2) + "\n")
    print(f"{options.env}: random {entry['random_return']:.1f}, ceiling {entry['ceiling_return']:.1f}, seeds {returns}")


if __name__ == "__main__":
    main()
