"""``bigrad doctor``: versions, devices and optional parts, on the core alone."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version

import torch

PURPOSES = {
    "cli": "the commands that train, with progress bars and tables",
    "rl": "learning from preferences on gymnasium environments",
    "plot": "the curves of a run as a picture",
    "combinatorial": "fast oracles: integer programs, assignments, paths; fast quadratic programs",
    "tour": "tours through more than twelve nodes",
    "convex": "layers from cvxpy problems",
    "atari": "Atari environments",
    "label": "labelling pairs of clips in the browser",
    "examples": "the data sets of the examples",
}


@dataclass(frozen=True)
class Part:
    """One extra: what it is for and the installed version of each of its packages, ``None`` where missing."""

    extra: str
    purpose: str
    packages: dict[str, str | None]

    @property
    def missing(self) -> list[str]:
        """The packages that are not there."""
        return [package for package, found in self.packages.items() if found is None]

    @property
    def install(self) -> str:
        """The line that installs it."""
        return f'pip install "bigrad[{self.extra}]"'


@dataclass(frozen=True)
class Report:
    """What ``bigrad doctor`` finds."""

    core: dict[str, str | None]
    devices: dict[str, str]
    parts: list[Part]
    warnings: list[str]


def run(argv: Sequence[str]) -> int:
    """Print the report; 1 where something is wrong with what is installed."""
    parser = argparse.ArgumentParser("bigrad doctor", description="What is installed, what is missing, how to get it.")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    as_json: bool = parser.parse_args(argv).json
    report = examine()
    if as_json:
        parts = [asdict(part) | {"missing": part.missing, "install": part.install} for part in report.parts]
        print(json.dumps(asdict(report) | {"parts": parts}, indent=2))
    else:
        print(_text(report))
    return 1 if report.warnings else 0


def examine() -> Report:
    """Look at this machine; imports nothing but torch."""
    core = {"bigrad": installed("bigrad"), "python": platform.python_version(), "torch": torch.__version__}
    return Report(core | {"optree": installed("optree")}, _devices(), _parts(), _warnings())


def part_of(module: str) -> Part | None:
    """The optional part that a module which failed to import belongs to."""
    package = _normal(module.partition(".")[0])
    return next((part for part in _parts() if package in map(_normal, part.packages)), None)


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _parts() -> list[Part]:
    """The extras of the installed bigrad, as its own metadata lists them."""
    packages: dict[str, dict[str, str | None]] = {extra: {} for extra in PURPOSES}
    for requirement in (requires("bigrad") if installed("bigrad") else None) or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and extra and extra[1] in packages and name[0] != "bigrad":
            packages[extra[1]][name[0]] = installed(name[0])
    return [Part(extra, PURPOSES[extra], found) for extra, found in packages.items()]


def _devices() -> dict[str, str]:
    cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": f"{torch.get_num_threads()} threads of {os.cpu_count()} cores",
        **{f"cuda:{i}": f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for i, gpu in enumerate(cuda)},
        **({} if cuda else {"cuda": "none" if torch.version.cuda else "none (this torch is built without it)"}),
        "mps": "there" if torch.backends.mps.is_available() else "none",
    }


def _warnings() -> list[str]:
    found = []
    if installed("bigrad") is None:
        found.append("bigrad runs from a source tree that is not installed, so its parts are unknown: pip install -e .")
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < (2, 9):
        found.append(f'torch {torch.__version__} is older than bigrad is made for: pip install "torch>=2.9,<3"')
    if stray := installed("functorch"):
        found.append(f"functorch {stray} wants torch < 2.1; torch.func has replaced it: pip uninstall functorch")
    return found


def _text(report: Report) -> str:
    lines = ["Versions", *(f"  {name:<14} {found or 'not installed'}" for name, found in report.core.items())]
    lines += ["", "Devices", *(f"  {name:<14} {what}" for name, what in report.devices.items())]
    lines += ["", "Optional parts"]
    for part in report.parts:
        lines.append(f"  {part.extra:<14} {'missing' if part.missing else 'there  '}  {part.purpose}")
        there = [f"{package} {found}" for package, found in part.packages.items() if found]
        lines += [f"  {'':<14} found    {', '.join(there)}"] if there else []
        lines += [f"  {'':<14} missing  {', '.join(part.missing)}: {part.install}"] if part.missing else []
    lines += ["", *(f"Warning: {warning}" for warning in report.warnings)]
    return "\n".join(lines).rstrip()


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
