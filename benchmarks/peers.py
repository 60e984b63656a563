"""The environments of the packages that bigrad is measured against: which exist, and how to make them.

    python benchmarks/peers.py [ENVIRONMENT ...]

makes one environment with the peers that run in torch, and bigrad from this checkout beside them, one with those in
jax, one with PyEPO and bigrad, and one with imitation, whose pins are years old. They lie under ``benchmarks/.peers``,
or where ``BIGRAD_PEERS`` says. A package that does not install is reported and the rest goes on. One whose lists have
not changed since it was made is left alone. ``make bench`` does this, and runs each script with the interpreter of its
environment.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHERE = Path(os.environ.get("BIGRAD_PEERS", HERE / ".peers"))
REQUIREMENTS = HERE / "peers"
LISTS = {
    "torch": (("torch", ()), ("torch-no-deps", ("--no-deps",)), ("betty", ("--no-deps", "--ignore-requires-python"))),
    "jax": (("jax", ()),),
    "pyepo": (("pyepo", ()),),
    "imitation": (("imitation", ()),),
}
BESIDE = ("torch", "pyepo")  # where bigrad itself is installed


def interpreter(environment: str) -> Path:
    """The interpreter of one of the environments."""
    return WHERE / environment / "bin" / "python"


def pinned(name: str) -> list[str]:
    """The requirements of one list."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def current() -> str:
    """The environment that this interpreter belongs to; empty where it is none of these."""
    prefix = Path(sys.prefix)
    return prefix.name if prefix.name in LISTS and prefix.parent == WHERE else ""


def versions(environment: str) -> dict[str, str]:
    """What is installed here of an environment's lists; "missing" where it is not."""
    found = {}
    for name in [line.split("==")[0] for part, _ in LISTS.get(environment, ()) for line in pinned(part)]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def install(environment: str, *arguments: str) -> bool:
    """Whether pip installed this; what is imported is compiled then."""
    command = [interpreter(environment), "-m", "pip", "install", "-q", "--no-compile", *arguments]
    return subprocess.run(command).returncode == 0


def fingerprint(environment: str) -> str:
    """Of what an environment is made from: its lists and the interpreter."""
    parts = [sys.version, str(HERE), *((REQUIREMENTS / f"{name}.txt").read_text() for name, _ in LISTS[environment])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make(environment: str) -> list[str]:
    """Make one environment; the requirements that did not install."""
    stamp, wanted = WHERE / environment / ".made", fingerprint(environment)
    if stamp.exists() and stamp.read_text() == wanted:
        return []
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
    if not failed:
        stamp.write_text(wanted)
    return failed


def prepare(environments: Sequence[str]) -> dict[str, list[str]]:
    """Make environments and say what is there; of each the requirements that did not install."""
    missing = {}
    for environment in environments:
        missing[environment] = make(environment)
        print(f"{environment}: {interpreter(environment)}", flush=True)
        for name in missing[environment]:
            print(f"  did not install: {name}", flush=True)
    return missing


if __name__ == "__main__":
    sys.exit(any(prepare(sys.argv[1:] or list(LISTS)).values()))
