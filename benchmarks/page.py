"""Make ``RESULTS.md``, its plots and the README's table of claims from the records: ``python benchmarks/page.py``.

Nothing is measured here, and every number comes from a record, so a test can hold the pages against the records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Row, cell, is_curve
from plots import PLOTS, draw
from record import replace_text
from targets import all_rows, tables_of

HERE = Path(__file__).resolve().parent
RESULTS, PAGE, README = HERE / "results", HERE / "RESULTS.md", HERE.parent / "README.md"
BEGIN, END = "<!-- claims table -->\n", "<!-- end -->"
NOTE = (
    "Made by `make bench` from the records in `results/`; do not edit. Times are medians of interleaved runs on one "
    "thread, each beside the error of what it bought. A row says whether it passes or falls short of its target."
)
SECTIONS = {  # record: title
    "implicit_gradients": "Gradients through argmins",
    "unrolled_memory": "Memory of a long inner training",
    "quadratic_programs": "Quadratic programs",
    "transforms": "Transforms",
    "fixed_points": "Fixed points",
    "combinatorial_oracles": "Combinatorial oracles",
    "interdiction": "Interdiction",
    "predict_then_optimize": "Predict, then optimize",
    "predict_then_optimize_short": "Predict, then optimize, short run",
    "fixed_step": "I-MLE with a fixed step",
    "soft_bellman": "Soft Bellman",
    "soft_bellman_short": "Soft Bellman, short run",
    "response_forms": "Response of a policy: forms",
    "response_forms_short": "Response of a policy: forms, short run",
    "response_bias": "Response of a policy: bias",
    "response_bias_short": "Response of a policy: bias, short run",
    "rlhf_step": "RLHF: upper step and whole runs",
    "rlhf_step_short": "RLHF: upper step and shorter runs",
    "beamrider": "RLHF: pictures",
    "scaling": "Scaling",
    "gpu": "On a GPU",
    "stochastic_bilevel": "Stochastic bilevel methods",
    "import_time": "Import time",
}


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a table; the columns are the keys of all rows, but for curves, which are plotted."""
    keys = dict.fromkeys(key for row in rows for key in row if not is_curve(row[key]))
    columns = sorted(keys, key=("verdict", "failure").__contains__)
    lines = [columns, ["---"] * len(columns)]
    lines += [[shown(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: Any) -> str:
    """A cell, with nothing in it that would end it."""
    return "" if value is None else cell(value).replace("|", "\\|")


def claims(rows: Sequence[Row]) -> str:
    """What was promised and what was found."""
    lines = ["| work | found | target | |", "|---|---|---|---|"]
    for row in rows:
        unit = {"x": "x", "ms": " ms", "% more": " % more"}.get(row["unit"], "")
        found = "-" if row["found"] is None else f"{two_digits(row['found'])}{unit}"
        lines.append(f"| {row['work']} | {found} | {two_digits(row['target'])}{unit} | {row['verdict']} |")
    return "\n".join(lines)


def two_digits(number: float) -> str:
    """Without an exponent where it can be."""
    return f"{float(f'{number:.2g}'):g}"


def origin(record: dict[str, Any]) -> str:
    """Where a record comes from, in a line."""
    versions = {**record.get("versions", {}), **record.get("peers", {})}
    hardware = record.get("hardware", {})
    parts = [f"`{record.get('command', '')}`", ", ".join(f"{name} {number}" for name, number in versions.items())]
    parts.append(f"{hardware.get('cpu', '')}, {hardware.get('cores', '')} cores")
    parts += filter(None, [hardware.get("gpu")])
    if "seconds" in record:
        parts.append(f"{record['seconds']} s")
    return "; ".join(parts)


def section(name: str, record: dict[str, Any]) -> str:
    """One record: its origin, its plots and its tables."""
    parts = [f"## {SECTIONS[name]}", origin(record)]
    parts += [f"![{plot.title}](results/plots/{title}.svg)" for title, plot in PLOTS.items() if plot.record == name]
    for title, rows in tables_of(record).items():
        parts += [f"**{title.replace('_', ' ')}**", markdown(rows)]
    return "\n\n".join(parts)


def read(results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The records that there are, in the order of the page."""
    paths = {name: results / f"{name}.json" for name in SECTIONS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def results_page(records: dict[str, dict[str, Any]], rows: Sequence[Row]) -> str:
    """The whole page."""
    missing = [
        name for name in SECTIONS if not name.endswith("_short") and not {name, f"{name}_short"} & records.keys()
    ]
    parts = [
        "# Results",
        NOTE,
        "## Claims",
        claims(rows),
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        *(section(name, record) for name, record in records.items()),
    ]
    return "\n\n".join(parts) + "\n"


def with_claims(readme: str, rows: Sequence[Row]) -> str:
    """The README with its block of claims made anew."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + claims(rows) + "\n" + END + rest.split(END, 1)[1]


def main() -> None:
    records, rows = read(), all_rows()
    draw(records, RESULTS / "plots")
    replace_text(PAGE, results_page(records, rows))
    replace_text(README, with_claims(README.read_text(), rows))
    print(claims(rows))


if __name__ == "__main__":
    main()
