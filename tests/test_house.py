"""This house keeps its rules, and each rule catches the violations planted here."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import house
from .house import MOST_LINES, MOST_NAMES, Rule, violations

ROOT = Path(__file__).resolve().parent.parent

PLANTS: dict[Rule, list[tuple[str, str]]] = {
    house.imports_go_down: [
        ("bigrad/linear/cg.py", "from ..gradients import Implicit"),
        ("bigrad/mdp/soft.py", "from .. import combinatorial"),
        ("bigrad/layers/argmin.py", "from bigrad.problems import quadratic"),
        ("bigrad/tree.py", "def f():\n    from .linear import CG"),
        ("bigrad/rlhf/run.py", "import importlib\nimportlib.import_module('bigrad.cli')"),
        ("bigrad/garage/new.py", ""),
    ],
    house.nobody_inside_uses_the_front_door: [
        ("bigrad/linear/cg.py", "from .. import argmin"),
        ("bigrad/rlhf/run.py", "import bigrad"),
        ("bigrad/layers/argmin.py", "from bigrad import __version__"),
    ],
    house.rooms_use_doors: [
        ("bigrad/gradients/implicit.py", "from ..linear.behind import solve"),
        ("bigrad/solvers/newton.py", "from ..linear import behind"),
        ("bigrad/solvers/newton.py", "from bigrad.solvers import descent"),
        ("bigrad/layers/argmin.py", "from ..linear import solve"),
    ],
    house.guests_use_doors: [
        ("examples/first.py", "from bigrad.linear.behind import solve"),
        ("benchmarks/speed.py", "import bigrad.linear.behind"),
        ("tests/test_cg.py", "from bigrad.linear import behind"),
    ],
    house.derivatives_have_one_address: [
        ("bigrad/solvers/newton.py", "import torch\ng = torch.autograd.grad(y, x)"),
        ("bigrad/solvers/newton.py", "import torch.nn\ng = torch.func.grad(f)"),
        ("bigrad/solvers/newton.py", "from torch.func import vmap"),
        ("bigrad/solvers/newton.py", "from torch import autograd as a\ng = a.grad(y, x)"),
    ],
    house.functions_are_at_their_address: [
        ("bigrad/mdp/soft.py", "import torch\nclass Soft(torch.autograd.Function): ..."),
        ("bigrad/layers/argmin.py", "from torch.autograd import Function"),
    ],
    house.optional_packages_are_at_their_address: [
        ("bigrad/mdp/soft.py", "import scipy.sparse"),
        ("bigrad/linear/cg.py", "def f():\n    import numpy as np"),
        ("bigrad/rlhf/run.py", "from rich.progress import Progress"),
        ("bigrad/layers/quadratic_program.py", "import cvxpy"),
        ("bigrad/cli/rlhf.py", "import gymnasium as gym"),
        ("bigrad/problems/toy.py", "from torch.utils import tensorboard"),
    ],
    house.packages_are_declared: [("bigrad/rlhf/run.py", "import pandas.io")],
    house.a_room_draws_in_one_module: [("bigrad/rlhf/second.py", "import matplotlib.pyplot as plt")],
    house.names_are_nouns: [
        ("bigrad/linear/_utils.py", ""),
        ("bigrad/rlhf/queue.py", ""),
        ("examples/helpers/first.py", ""),
    ],
    house.the_library_is_silent: [("bigrad/solvers/newton.py", "def f():\n    print('step')")],
    house.devices_come_from_tensors: [
        ("bigrad/rlhf/run.py", "import torch\nd = torch.device('cuda:0')"),
        ("bigrad/cli/rlhf.py", "device = 'cpu'"),
    ],
    house.the_front_door_is_narrow: [
        ("bigrad/__init__.py", f"__all__ = {[f'name{i}' for i in range(MOST_NAMES + 1)]}"),
        ("bigrad/__init__.py", "from .linear import solve"),
    ],
    house.files_are_short: [("tests/test_long.py", "\n" * (MOST_LINES + 1))],
}
SOUND = {
    "bigrad/__init__.py": "from . import linear\nfrom .layers import ArgMin\n__all__ = ['ArgMin', 'linear']",
    "bigrad/__main__.py": "from .cli import main",
    "bigrad/calculus.py": "import torch\nfrom torch.func import vmap\nfrom .tree import ravel\ng = torch.autograd.grad",
    "bigrad/linear/__init__.py": "from .behind import solve",
    "bigrad/linear/behind.py": "from .. import calculus\nfrom ..errors import InputError\nx = calculus.g.cpu()",
    "bigrad/gradients/implicit.py": "import torch\nfrom ..linear import solve\nclass I(torch.autograd.Function): ...",
    "bigrad/layers/argmin.py": "from bigrad.gradients import Implicit\nfrom bigrad import linear",
    "bigrad/rlhf/first.py": "import gymnasium\nimport numpy as np\nimport matplotlib.pyplot as plt",
    "bigrad/cli/doctor.py": "print('cuda')",
    "tests/test_cg.py": "import bigrad\nfrom bigrad import linear\nfrom bigrad.linear import solve",
}

every_rule = pytest.mark.parametrize("rule", PLANTS, ids=lambda rule: rule.__name__)


def build(root: Path, files: dict[str, str]) -> Path:
    """Write a source tree."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@every_rule
def test_this_house_keeps(rule: Rule) -> None:
    assert violations(ROOT, rule) == []


@every_rule
def test_a_sound_tree_keeps(rule: Rule, tmp_path: Path) -> None:
    assert violations(build(tmp_path, SOUND), rule) == []


@every_rule
def test_planted_violations_are_caught(rule: Rule, tmp_path: Path) -> None:
    for number, (path, text) in enumerate(PLANTS[rule]):
        found = violations(build(tmp_path / str(number), SOUND | {path: text}), rule)
        assert {line.split(":")[0] for line in found} == {path}, f"{text!r} in {path}"


def test_every_rule_has_its_plants() -> None:
    rules = {
        thing for thing in vars(house).values() if getattr(thing, "__annotations__", {}).keys() == {"house", "return"}
    }
    assert rules == PLANTS.keys()


def test_layers_is_linked_at_the_top() -> None:
    assert (ROOT / "layers").resolve() == ROOT / "bigrad" / "layers"
