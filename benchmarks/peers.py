"""The environments of the packages that bigrad is measured against: which exist, and how to make them.

    python benchmarks/peers.py

makes one environment with the peers that run in torch, and bigrad from this checkout beside them, one with those in
jax, and one with PyEPO and bigrad. They lie under ``benchmarks/.peers``, or where ``BIGRAD_PEERS`` says. A package that
does not install is reported and the rest goes on. The benchmarks then run in the first:

    benchmarks/.peers/torch/bin/python benchmarks/implicit_gradients.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHERE = Path(os.environ.get("BIGRAD_PEERS", HERE / ".peers"))
REQUIREMENTS = HERE / "peers"
LISTS = {
    "torch": (("torch", ()), ("torch-no-deps", ("--no-deps",))),
    "jax": (("jax", ()),),
    "pyepo": (("pyepo", ()),),
}
BESIDE = ("torch", "pyepo")  # where bigrad itself is installed


def interpreter(environment: str) -> Path:
    """The interpreter of one of the environments."""
    return WHERE / environment / "bin" / "python"


def pinned(name: str) -> list[str]:
    """The requirements of one list."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def versions(environment: str = "torch") -> dict[str, str]:
    """What is installed here of an environment's lists; "missing" where it is not."""
    found = {}
    for name in [line.split("==")[0] for part, _ in LISTS[environment] for line in pinned(part)]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def install(environment: str, *arguments: str) -> bool:
    """Whether pip installed this."""
    return subprocess.run([interpreter(environment), "-m", "pip", "install", "-q", *arguments]).returncode == 0


def make(environment: str) -> list[str]:
    """Make one environment; the requirements that did not install."""
    if not interpreter(environment).exists():
        subprocess.run([sys.executable, "-m", "venv", WHERE / environment], check=True)
    failed = []
    for name, flags in LISTS[environment]:
        if install(environment, *flags, "-r", str(REQUIREMENTS / f"{name}.txt")):
            continue
        constraint = str(REQUIREMENTS / f"{name}.txt")
        failed += [line for line in pinned(name) if not install(environment, *flags, "-c", constraint, line)]
    if environment in BESIDE and not install(environment, "--no-deps", "-e", str(HERE.parent)):
        failed.append("bigrad")
    return failed


if __name__ == "__main__":
    missing = {environment: make(environment) for environment in LISTS}
    for environment, failed in missing.items():
        print(f"{environment}: {interpreter(environment)}")
        print(*(f"  did not install: {name}" for name in failed), sep="\n", end="\n" if failed else "")
    sys.exit(any(missing.values()))
