"""The roof: ``bigrad COMMAND``, one sub-command a file, each loaded only when it is called."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import BigradError, MissingPackage
from .doctor import installed, part_of

COMMANDS = {
    "rlhf": "learn a reward model and a policy from preferences, on a gymnasium environment",
    "compare": "methods, teachers and labels on paired seeds, in parallel, with intervals",
    "label": "compare pairs of clips of a run in the browser, as its teacher",
    "doctor": "list versions, devices and optional parts: what is there, what is missing, how to get it",
}

TEACH = """\
bigrad: differentiable bilevel layers for PyTorch, and RLHF built on them

usage: bigrad COMMAND [OPTIONS]

commands
{commands}

begin with
  bigrad rlhf --env Pendulum-v1 --method sobirl --steps 8000 --labels 200 --out runs/first
  bigrad doctor

`bigrad COMMAND --help` lists a command's options, `bigrad --version` the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 2 for a mistake that the message explains, 130 for Ctrl-C."""
    command, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if command in {"-h", "--help", "help"}:
        commands = "\n".join(f"  {name:<8} {purpose}" for name, purpose in COMMANDS.items())
        print(TEACH.format(commands=commands), end="")
        return 0
    if command == "--version":
        print(f"bigrad {installed('bigrad') or '(a source tree, not installed)'}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.4)
        hint = f"did you mean `bigrad {near[0]}`?" if near else f"commands: {', '.join(COMMANDS)}"
        return _refuse(f"there is no command {command!r}; {hint}")
    try:
        code: int = import_module(f".{command}", __package__).run(rest)
    except ModuleNotFoundError as error:
        part = part_of(error.name or "")
        if part is None:
            raise
        return _refuse(MissingPackage(error.name or "", part.extra, part.purpose))
    except BigradError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return 130
    return code


def _refuse(message: object) -> int:
    print(f"bigrad: {message}", file=sys.stderr)
    return 2
