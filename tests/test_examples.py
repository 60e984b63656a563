"""Every example runs from the command line and says what it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAYS = {
    "clean_data.py": "cleaned",
    "deep_equilibrium.py": "Certificate(fixed point:",
    "robust_classifier.py": "picture",
    "robust_control.py": "largest duality gap",
    "tune_elastic_net.py": "scikit-learn's coefficients there differ by",
    "tune_ridge.py": "Certificate(argmin: CONVERGED",
    "inverse_reward.py": "learnt reward",
    "four_rooms.py": "by finite differences",
    "reward_shaping.py": "no policy has more than",
    "synthetic_rates.py": "from step",
    "tabular_rlhf.py": "preference loss",
    "predict_then_optimize.py": "least regret",
    "terrain_interdiction.py": "best in",
    "tour_interdiction.py": "best in",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name, "--quick"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,  # pictures go to runs/
    )
    assert run.returncode == 0, run.stderr
    assert SAYS[name] in run.stdout


def test_every_example_is_run_here() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(SAYS)
