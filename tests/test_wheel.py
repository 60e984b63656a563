"""The wheel installs where nothing else is, and ``import bigrad`` loads torch and nothing optional."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = {
    *("cvxpy", "cvxpylayers", "fastapi", "gymnasium", "imageio", "matplotlib", "mujoco", "numba", "ortools"),
    *("rich", "safetensors", "scipy", "sklearn", "stable_baselines3", "tensorboard", "tyro", "uvicorn"),
}
SLOW_TORCH = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.func", "torch.onnx", "torch.distributed")


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)


def succeed(*command: object, cwd: Path) -> str:
    done = call(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modules(python: Path, statement: str, cwd: Path) -> set[str]:
    """The modules that a fresh process has loaded after ``statement``."""
    return set(
        json.loads(succeed(python, "-c", f"{statement}; import json, sys; print(json.dumps([*sys.modules]))", cwd=cwd))
    )


def assert_light(python: Path, cwd: Path) -> None:
    added = modules(python, "import bigrad", cwd) - modules(python, "import torch", cwd)
    assert "bigrad.solvers" in added
    assert not OPTIONAL & {name.split(".")[0] for name in added}
    assert not [name for name in added if name.startswith(SLOW_TORCH)]
    assert "bigrad.solvers.quadratic_program" not in added  # a floor of its own, entered when first asked for


def test_import_loads_nothing_optional_that_is_installed(tmp_path: Path) -> None:
    assert_light(Path(sys.executable), tmp_path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, built from a copy of the source."""
    copy, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "bigrad", copy / "bigrad", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "layers").symlink_to("bigrad/layers")
    succeed(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, cwd=copy)
    return next(built.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    succeed(python, "-m", "pip", "install", "--no-compile", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert_light(python, tmp_path)

    package = Path(succeed(python, "-c", "import bigrad; print(bigrad.__file__)", cwd=tmp_path).strip()).parent
    files = {
        path.relative_to(ROOT) for path in (ROOT / "bigrad").rglob("*") if path.suffix in {".py", ".json", ".typed"}
    }
    assert [path for path in files if not (package.parent / path).exists()] == []
    assert not (package.parent / "layers").exists()

    bigrad = python.with_name("bigrad")
    assert "doctor" in succeed(bigrad, cwd=tmp_path)
    assert 'pip install "bigrad[rl]"' in succeed(bigrad, "doctor", cwd=tmp_path)
    refused = call(bigrad, "rlhf", "--env", "Pendulum-v1", cwd=tmp_path)
    assert refused.returncode == 2
    assert 'pip install "bigrad[' in refused.stderr
