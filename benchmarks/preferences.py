"""Keep the runs of ``bigrad compare`` as one record, and the table that it makes: ``results/preferences``.

    bigrad compare ... --record runs/record
    python benchmarks/preferences.py pendulum runs/record

takes the runs of any number of folders, from whatever machines, into ``pendulum.json``; without a folder the table
``pendulum.md`` is made again from it. Nothing is measured here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from record import replace_text

from bigrad.rlhf import Settings, comparison

RECORDS = Path(__file__).resolve().parent / "results" / "preferences"
APART = ("settings", "versions", "hardware", "command")


def gathered(folders: list[Path], content: dict[str, Any]) -> dict[str, Any]:
    """A record with the runs of these folders too; settings and origins are written once."""
    arms, origins, runs = content.get("arms", {}), content.get("origins", []), content.get("runs", [])
    known = {identity(run) for run in runs}
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        found = json.loads(path.read_text())
        if identity(found) in known:
            continue
        origin = {name: found[name] for name in APART[1:]}
        if origin not in origins:
            origins.append(origin)
        own = {name: value for name, value in found["settings"].items() if name not in ("env", "labels", "seed")}
        if arms.setdefault(found["arm"], own) != own:
            raise SystemExit(f"{path}: arm {found['arm']} has other settings than in the runs before")
        runs.append(
            {name: value for name, value in found.items() if name not in APART} | {"origin": origins.index(origin)}
        )
    return {"arms": arms, "origins": origins, "runs": sorted(runs, key=lambda run: tuple(map(str, identity(run))))}


def identity(run: dict[str, Any]) -> tuple[Any, ...]:
    """What no two runs share."""
    return run["env"], run["arm"], run["teacher"], run["labels"], run["seed"]


def table(content: dict[str, Any]) -> str:
    """The table of ``bigrad compare``; learning curves are not in the record."""
    known, outcomes = {field.name for field in fields(Settings)}, []
    for run in content["runs"]:
        own = {name: value for name, value in content["arms"][run["arm"]].items() if name in known}
        labels = None if run["teacher"] is None else run["labels"]
        settings = Settings(**own | {"env": run["env"], "seed": run["seed"]} | ({"labels": labels} if labels else {}))
        name = "/".join(map(str, identity(run)))
        planned = comparison.Run(
            comparison.Task(run["env"], run["teacher"], labels), run["arm"], settings, {}, Path(name)
        )
        outcomes.append(comparison.Outcome(planned, {**run, **content["origins"][run["origin"]]}, ()))
    every = comparison.Outcomes(outcomes)
    return comparison.as_markdown(every, comparison.judge(every), "python benchmarks/preferences.py NAME FOLDER ...")


if __name__ == "__main__":
    name, *folders = sys.argv[1:]
    path = RECORDS / f"{name}.json"
    former = json.loads(path.read_text()) if path.exists() else {}
    content = gathered([Path(folder) for folder in folders], former)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(run) for run in content.pop("runs"))
    head = json.dumps(content, indent=1).rstrip("}\n")
    replace_text(path, f'{head},\n "runs": [\n{rows}\n]}}\n')
    content["runs"] = json.loads(path.read_text())["runs"]
    replace_text(path.with_suffix(".md"), table(content))
