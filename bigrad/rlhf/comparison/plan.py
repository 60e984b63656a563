"""What is compared: arms times teachers times labels times seeds, each a run with a folder of its own."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...errors import InputError, RunError
from ..environments import make
from ..settings import METHODS, Settings
from ..snapshot import read_json, write_json
from ..teacher import SyntheticTeacher

FORMAT = "bigrad comparison 1"
RUN, RESULT, HISTORY = "run.json", "result.json", "history.json"
STEP = "step.txt"  # how far a run is, for whoever watches
TEACHERS: dict[str, dict[str, Any]] = {**SyntheticTeacher.KINDS, "noisy": {"beta": 0.05}}
_GIVEN = ("env", "labels", "seed")  # said of every run, so no arm may change them
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Variant:
    """A name and the settings that it stands for: an arm of a comparison, or a teacher.

    Attributes:
        name: what tables, pictures and folders call it.
        settings: what differs from the defaults.
    """

    name: str
    settings: Mapping[str, Any]

    @classmethod
    def arm(cls, text: str) -> Variant:
        """Read ``METHOD`` or ``NAME:setting=value,...``.

        Raises:
            InputError: an unknown method or setting, or a value that is none.

        Example:
            >>> Variant.arm("bold:method=sobirl,response_limit=2")
            Variant(name='bold', settings={'method': 'sobirl', 'response_limit': 2.0})
        """
        known = {field.name: field.default for field in fields(Settings) if field.name not in _GIVEN}
        name, changes = _read(text, known)
        if "method" not in changes:
            if name not in METHODS:
                raise InputError(
                    f"{text!r} names no method; wanted one of {', '.join(METHODS)}, or NAME:method=...,setting=value"
                )
            changes["method"] = name
        return cls(name, changes)

    @classmethod
    def teacher(cls, text: str) -> Variant:
        """Read a name of :data:`TEACHERS` or ``NAME:argument=value,...`` (arguments of ``SyntheticTeacher``).

        Raises:
            InputError: an unknown teacher or argument, or a value that is none.

        Example:
            >>> Variant.teacher("hazy:beta=0.2")
            Variant(name='hazy', settings={'beta': 0.2})
        """
        given = inspect.signature(SyntheticTeacher).parameters
        known = {name: parameter.default for name, parameter in given.items() if name != "seed"}
        name, changes = _read(text, known)
        changes = {**TEACHERS.get(name, {}), **changes}
        if not changes:
            raise InputError(f"{text!r} names no teacher; wanted one of {', '.join(TEACHERS)}, or NAME:beta=...")
        SyntheticTeacher(**changes)  # raises where it is none
        return cls(name, changes)


@dataclass(frozen=True)
class Task:
    """Under what circumstances arms are compared; teacher and labels are ``None`` for arms that see the true reward."""

    env: str
    teacher: str | None
    labels: int | None

    def title(self) -> str:
        """For headings."""
        if self.labels is None:
            return self.env
        return f"{self.env}, {self.labels} labels, {self.teacher} teacher"


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        task: its circumstances.
        arm: the arm's name.
        settings: all of them.
        teacher: arguments of the ``SyntheticTeacher``; empty where no one teaches.
        folder: its own.
    """

    task: Task
    arm: str
    settings: Settings
    teacher: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run that a folder was made for.

        Raises:
            RunError: its ``run.json`` is missing, damaged or of another version.
        """
        content = read_run(folder)
        try:
            known = {field.name for field in fields(Settings)} & content["settings"].keys()
            settings = Settings(**{name: content["settings"][name] for name in known})
            given, name = _arguments(content["teacher"]), content["teacher_name"]
            task = Task(settings.env, name, None if name is None else settings.labels)
            return cls(task, content["arm"], settings, given, folder)
        except (KeyError, AttributeError, InputError) as error:
            raise RunError(f"{folder / RUN} is damaged ({error}): remove {folder}, and start it anew") from error

    @property
    def name(self) -> str:
        """Environment, arm (with labels and teacher) and seed."""
        return "/".join(self.folder.parts[-3:])

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT).exists()

    @property
    def step(self) -> int:
        """How far it is."""
        if self.finished:
            return self.settings.steps
        try:
            return int((self.folder / STEP).read_text())
        except (OSError, ValueError):  # not begun, or being written
            return 0

    def prepare(self, command: str) -> None:
        """Write down what is to be run, or check that the folder is of this very run.

        Raises:
            RunError: the folder is another run's.
        """
        path = self.folder / RUN
        if not path.exists():
            teacher = {name: str(value) for name, value in self.teacher.items()}  # JSON knows no inf
            content = {"format": FORMAT, "arm": self.arm, "teacher_name": self.task.teacher, "teacher": teacher}
            write_json(path, {**content, "settings": self.settings.to_json(), "command": command})
            return
        found = Run.read(self.folder)  # a setting that is younger than the run had its default
        was = found.settings.to_json()
        odd = [
            f"{name}={was[name]!r} (wanted {value!r})"
            for name, value in self.settings.to_json().items()
            if was[name] != value
        ]
        if found.teacher != self.teacher:
            odd.append(f"teacher={found.teacher} (wanted {self.teacher})")
        if odd:
            raise RunError(f"{self.folder} holds a run with {', '.join(odd)}: choose another --out")


def plan(
    envs: Sequence[str],
    arms: Sequence[Variant],
    teachers: Sequence[Variant],
    labels: Sequence[int],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    out: Path,
) -> list[Run]:
    """All runs of a comparison, one seed after the other, so that what is finished is always comparable.

    Every arm has the same seeds: starts, first networks and the teacher's dice are shared. An arm that sees the true
    reward is run once for each seed, whatever the labels and teachers.

    Args:
        envs: registered environments.
        arms: what is compared.
        teachers: who labels.
        labels: how many labels.
        seeds: of the runs.
        settings: of every run; an arm's own come first.
        out: where the folders are.

    Raises:
        InputError: nothing to compare, a name twice, or a number out of range.
        MissingPackage, UnsupportedError: an environment that cannot be learnt in.
    """
    wanted = {"envs": envs, "arms": arms, "teachers": teachers, "labels": labels, "seeds": seeds}
    for name, given in wanted.items():
        names = [item.name if isinstance(item, Variant) else item for item in given]
        if not names or len(set(names)) < len(names):
            raise InputError(f"{name} are {', '.join(map(str, names)) or 'missing'}; wanted at least one, none twice")
    for env in envs:
        make(env).close()
    runs: dict[Path, Run] = {}
    for seed in seeds:
        for env in envs:
            place = out / re.sub(r"[^A-Za-z0-9_.-]+", "-", env)
            for budget in labels:
                for teacher in teachers:
                    for arm in arms:
                        chosen = Settings(**{**settings, **arm.settings, "env": env, "labels": budget, "seed": seed})
                        if chosen.learns_reward:
                            folder = place / f"{arm.name}-{budget}-{teacher.name}" / f"seed{seed}"
                            run = Run(Task(env, teacher.name, budget), arm.name, chosen, teacher.settings, folder)
                        else:
                            folder = place / arm.name / f"seed{seed}"
                            run = Run(Task(env, None, None), arm.name, replace(chosen, labels=0), {}, folder)
                        runs.setdefault(run.folder, run)
    return list(runs.values())


def others(out: Path, runs: Sequence[Run]) -> list[Run]:
    """The finished runs in ``out`` beside these: an earlier command asked for them.

    Raises:
        RunError: a damaged file.
    """
    known = {run.folder for run in runs}
    folders = sorted(path.parent for path in out.glob(f"*/*/seed*/{RUN}"))
    found = [Run.read(folder) for folder in folders if folder not in known]
    return [run for run in found if run.finished]


def read_run(folder: Path) -> dict[str, Any]:
    """What :meth:`Run.prepare` wrote.

    Raises:
        RunError: it is missing, damaged or of another version.
    """
    content = read_json(folder / RUN)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{folder / RUN} is not of a comparison of this version of bigrad (wanted format {FORMAT!r})")
    return content


def typed(text: str, default: Any, name: str) -> Any:
    """``text`` as a value of the kind of ``default``.

    Raises:
        InputError: it is none.
    """
    kind = str if default is None else type(default)
    if kind is bool:
        if text.lower() not in {"true", "false"}:
            raise InputError(f"{name} is {text!r}; wanted true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{name} is {text!r}; wanted a value like {default!r}") from error


def _arguments(content: Mapping[str, str]) -> dict[str, Any]:
    """A teacher's arguments from what :meth:`Run.prepare` wrote."""
    given = inspect.signature(SyntheticTeacher).parameters
    return {name: typed(value, given[name].default, name) for name, value in content.items()}


def _read(text: str, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``NAME:key=value,key=value`` in parts."""
    name, _, rest = text.partition(":")
    if not _NAME.fullmatch(name):
        raise InputError(f"{text!r} begins with no name; wanted NAME or NAME:setting=value,... (letters, digits, _.+-)")
    changes = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
            raise InputError(f"{text!r} sets {key!r}, which is none of its settings; near it: {', '.join(near) or '-'}")
        if not equals:
            raise InputError(f"{part!r} in {text!r} has no value; wanted {key}=...")
        changes[key] = typed(value, known[key], key)
    return name, changes
