"""The rules of the house, read from the source with ``ast``: each takes a tree and yields what breaks it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

CELLAR = frozenset(
    {"capture", "compiled", "constraints", "tree", "calculus", "certificate", "errors", "equation", "kernel"}
)
FLOORS = (
    CELLAR,
    {"linear"},
    {"gradients"},
    {"solvers"},
    {"combinatorial", "conic", "mdp"},
    {"layers", "problems"},
    {"rlhf"},
    {"cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

CLI, COMBINATORIAL, RLHF = "bigrad/cli/", "bigrad/combinatorial/", "bigrad/rlhf/"
SOLVER_KERNELS = tuple(f"bigrad/solvers/{name}_numba.py" for name in ("rows", "exchange", "kkt"))
CONVEX_PROGRAM, DOCTOR = "bigrad/layers/convex_program.py", "bigrad/cli/doctor.py"
ADDRESSES = {  # where each optional package may be imported
    **dict.fromkeys(("ale_py", "gymnasium", "imageio", "mujoco", "safetensors"), (RLHF,)),
    **dict.fromkeys(("sb3_contrib", "stable_baselines3", "tensorboard", "torch.utils.tensorboard", "yaml"), (RLHF,)),
    **dict.fromkeys(("fastapi", "tyro", "uvicorn"), (CLI,)),
    "rich": (CLI, "bigrad/rlhf/progress.py"),
    **dict.fromkeys(("cvxpy", "cvxpylayers"), (CONVEX_PROGRAM,)),
    "matplotlib": ("bigrad/",),  # and one module a room, see below
    "numba": ("bigrad/kernel.py",),
    "ortools": (COMBINATORIAL,),
    "numpy": (COMBINATORIAL, RLHF, CONVEX_PROGRAM, "bigrad/kernel.py", *SOLVER_KERNELS),
    "scipy": (COMBINATORIAL, RLHF),
}
DERIVATIVES = (
    *("torch.autograd.grad", "torch.autograd.functional", "torch.autograd.forward_ad"),
    *("torch.func", "torch.vmap", "torch._C._functorch", "torch._functorch", "functorch"),
)
FUNCTIONS = ("torch.autograd.Function", "torch.autograd.function")
DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "core"}
MOST_NAMES, MOST_LINES = 25, 300
LONG_FILES = {  # path: why it may be longer than MOST_LINES
    "benchmarks/implicit_gradients.py": "six tables on one set of problems",
    "examples/terrain_interdiction.py": "nine ways to train one network, and how they are judged",
    "examples/tour_interdiction.py": "the same ways and one more",
}


class Import(NamedTuple):
    """One imported name; ``name`` is empty for ``import module``."""

    line: int
    level: int  # leading dots
    module: str  # absolute
    name: str
    bound: str  # the local name

    @property
    def target(self) -> str:
        """The absolute dotted name of what is imported."""
        return f"{self.module}.{self.name}".rstrip(".")

    @property
    def room(self) -> str:
        """The room of bigrad that is entered; empty for the front door."""
        return [*self.target.split("."), ""][1]


@dataclass
class Source:
    """One Python file, by its path from the root."""

    path: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @property
    def room(self) -> str:
        return Path(self.path).parts[1].removesuffix(".py")

    @cached_property
    def imports(self) -> list[Import]:
        found = []
        for node in self.nodes:
            match node:
                case ast.Import(names):
                    found += [Import(node.lineno, 0, it.name, "", it.asname or "") for it in names]
                case ast.ImportFrom(module, names, level):
                    package = Path(self.path).parts[:-level] if level else ()
                    origin = ".".join([*package, *([module] if module else [])])
                    found += [Import(node.lineno, level, origin, it.name, it.asname or it.name) for it in names]
                case ast.Call(ast.Name(call) | ast.Attribute(attr=call), [ast.Constant(str(module)), *_]):
                    if call in {"import_module", "__import__"} and not module.startswith("."):
                        found.append(Import(node.lineno, 0, module, "", ""))
        return found

    @property
    def guests(self) -> list[Import]:
        """The imports that name bigrad."""
        return [item for item in self.imports if item.module.split(".")[0] == "bigrad"]

    @cached_property
    def uses(self) -> list[tuple[int, str]]:
        """Everything imported, and every dotted name that starts at an import, as ``(line, absolute name)``."""
        stands_for = {item.module.split(".")[0]: item.module.split(".")[0] for item in self.imports}
        stands_for |= {item.bound: item.target for item in self.imports if item.bound}
        found = [(item.line, item.target) for item in self.imports]
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                root, _, rest = ast.unparse(node).partition(".")
                found += [(node.lineno, f"{stands_for[root]}.{rest}")] if root in stands_for else []
        return found


class House:
    """The Python files below ``root``."""

    def __init__(self, root: Path) -> None:
        paths = (path for top in ("bigrad", "examples", "benchmarks", "tests") for path in (root / top).rglob("*.py"))
        named = {path.relative_to(root).as_posix(): path for path in paths if "/." not in path.as_posix()}
        self.sources = {name: Source(name, path.read_text("utf-8")) for name, path in sorted(named.items())}
        self.library = [source for name, source in self.sources.items() if name.startswith("bigrad/")]

    def behind_door(self, item: Import) -> bool:
        """Whether an import reaches past a room's door to a module behind it."""
        if item.module.count(".") > 1:
            return True
        door = self.sources.get(f"{item.module.replace('.', '/')}/__init__.py")
        opened = {entry.bound for entry in door.imports} if door else set()
        is_module = f"{item.target.replace('.', '/')}.py" in self.sources
        return item.target.count(".") > 1 and is_module and item.name not in opened


Finding = tuple[Source, int, str]
Rule = Callable[[House], Iterator[Finding]]


def imports_go_down(house: House) -> Iterator[Finding]:
    for source in house.library:
        if source.room in {"__init__", "__main__"}:
            continue  # the front door and the doorbell see every room
        if source.room not in FLOOR:
            yield source, 1, f"the room {source.room} has no floor: give it one in tests/house.py"
            continue
        for item in source.guests:
            own = item.room == source.room or {item.room, source.room} <= CELLAR
            if not own and FLOOR.get(item.room, -1) >= FLOOR[source.room]:
                yield source, item.line, f"{source.room} imports {item.room}, which is not below it"


def nobody_inside_uses_the_front_door(house: House) -> Iterator[Finding]:
    for source in house.library:
        for item in source.guests:
            if item.room not in FLOOR:
                yield source, item.line, f"imports {item.target} from the package root"


def rooms_use_doors(house: House) -> Iterator[Finding]:
    for source in house.library:
        for item in source.guests:
            own = item.room == source.room
            if not own and house.behind_door(item):
                yield source, item.line, f"reaches behind the door of {item.room}"
            elif source.room == "layers" and item.level:
                yield source, item.line, "imports in layers/ are absolute: from bigrad.…"
            elif source.room != "layers" and own and not item.level:
                yield source, item.line, "imports inside a room are relative"


def guests_use_doors(house: House) -> Iterator[Finding]:
    for name, source in house.sources.items():
        for item in source.guests:
            if not name.startswith("bigrad/") and house.behind_door(item):
                yield source, item.line, f"reaches behind the door of {item.room}"


def kept_at(house: House, names: tuple[str, ...], addresses: tuple[str, ...]) -> Iterator[Finding]:
    for source in house.library:
        for line, used in source.uses:
            if not source.path.startswith(addresses) and f"{used}.".startswith(tuple(f"{name}." for name in names)):
                yield source, line, f"{used} belongs in {' or '.join(addresses)}"


def derivatives_have_one_address(house: House) -> Iterator[Finding]:
    yield from kept_at(house, DERIVATIVES, ("bigrad/calculus.py",))


def functions_are_at_their_address(house: House) -> Iterator[Finding]:
    yield from kept_at(house, FUNCTIONS, ("bigrad/gradients/", COMBINATORIAL, "bigrad/solvers/"))


def optional_packages_are_at_their_address(house: House) -> Iterator[Finding]:
    for package, addresses in ADDRESSES.items():
        yield from kept_at(house, (package,), addresses)


def packages_are_declared(house: House) -> Iterator[Finding]:
    known = sys.stdlib_module_names | ADDRESSES.keys() | {"bigrad", "torch", "optree"}
    for source in house.library:
        for item in source.imports:
            if item.module.split(".")[0] not in known:
                yield source, item.line, f"{item.module} is no dependency of bigrad"


def a_room_draws_in_one_module(house: House) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for source in house.library:
        for line, used in source.uses:
            if used.split(".")[0] == "matplotlib" and first.setdefault(source.room, source.path) != source.path:
                yield source, line, f"{source.room} already draws in {first[source.room]}"


def names_are_nouns(house: House) -> Iterator[Finding]:
    for name, source in house.sources.items():
        for part in Path(name).with_suffix("").parts[1:]:
            if not name.startswith("tests/") and part.strip("_") in DRAWERS | sys.stdlib_module_names:
                yield source, 1, f"{part} is a drawer, or hides a module of the standard library"


def the_library_is_silent(house: House) -> Iterator[Finding]:
    for source in house.library:
        for node in source.nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and not source.path.startswith(CLI):
                yield source, node.lineno, "prints"


def devices_come_from_tensors(house: House) -> Iterator[Finding]:
    for source in house.library:
        for node in source.nodes:
            if isinstance(node, ast.Constant) and DEVICE.fullmatch(str(node.value)) and source.path != DOCTOR:
                yield source, node.lineno, f"hard-coded device {node.value!r}"


def the_front_door_is_narrow(house: House) -> Iterator[Finding]:
    for source in house.library:
        if source.path == "bigrad/__init__.py":
            assigned = [node for node in source.nodes if isinstance(node, ast.Assign)]
            names = [node.value for node in assigned if ast.unparse(node.targets[0]) == "__all__"]
            if len(names) != 1 or len(ast.literal_eval(names[0])) > MOST_NAMES:
                yield source, 1, f"wants one literal __all__ of at most {MOST_NAMES} names"


def files_are_short(house: House) -> Iterator[Finding]:
    for name, source in house.sources.items():
        lines = source.text.count("\n")
        if lines > MOST_LINES and name not in LONG_FILES:
            yield source, lines, f"longer than {MOST_LINES} lines: split it, or say why in LONG_FILES of tests/house.py"


def violations(root: Path, rule: Rule) -> list[str]:
    """Where the tree at ``root`` breaks ``rule``, as ``path:line: what is wrong``."""
    return [f"{source.path}:{line}: {message}" for source, line, message in rule(_read(root))]


@cache
def _read(root: Path) -> House:
    """Reading takes longer than all the rules."""
    return House(root)
