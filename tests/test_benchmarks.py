"""The benchmarks' house: the pages say what the records say, and one run makes every table and hides no failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason='needs pip install "bigrad[plot]"')

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import harness  # noqa: E402  # the scripts are no package
import page  # noqa: E402
import peers  # noqa: E402
import run  # noqa: E402
import targets  # noqa: E402

sys.path.remove(str(ROOT / "benchmarks"))

REMEDY = "python benchmarks/page.py makes the pages from the records"


def test_the_pages_agree_with_the_records() -> None:
    rows = targets.all_rows()
    assert page.PAGE.read_text("utf-8") == page.results_page(page.read(), rows), REMEDY
    readme = page.README.read_text("utf-8")
    assert readme == page.with_claims(readme, rows), REMEDY


def test_a_number_that_was_edited_is_seen() -> None:
    rows = targets.all_rows()
    at = next(place for place, row in enumerate(rows) if row["found"])
    edited = [*rows[:at], rows[at] | {"found": 2 * rows[at]["found"]}, *rows[at + 1 :]]
    readme = page.README.read_text("utf-8")
    assert readme != page.with_claims(readme, edited)
    assert page.PAGE.read_text("utf-8") != page.results_page(page.read(), edited)
    records = page.read()
    records["quadratic_programs"]["tables"]["times"][0]["both ms"] *= 1.1
    assert page.PAGE.read_text("utf-8") != page.results_page(records, rows)


def test_a_ratio_is_that_of_the_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = json.loads((targets.RESULTS / "quadratic_programs.json").read_text("utf-8"))
    for row in record["tables"]["times"]:
        row["both ms"] *= 3.0 if row["way"] == "qpth" else 1.0
    (tmp_path / "quadratic_programs.json").write_text(json.dumps(record))

    def over_qpth() -> list[float]:
        return [row["found"] for row in targets.all_rows() if row["work"].endswith("over qpth")]

    before = over_qpth()
    monkeypatch.setattr(targets, "RESULTS", tmp_path)
    assert over_qpth() == pytest.approx([ratio / 3 for ratio in before])


def test_a_claim_without_a_record_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(targets, "RESULTS", tmp_path)
    assert {row["verdict"] for row in targets.all_rows()} == {"not measured"}


def test_every_plot_that_is_shown_is_there() -> None:
    shown = {plot.record for plot in page.PLOTS.values()} & page.read().keys()
    files = {name for name, plot in page.PLOTS.items() if plot.record in shown}
    assert {path.stem for path in (page.RESULTS / "plots").glob("*.svg")} == files


def test_every_table_has_a_script_a_section_and_its_environments() -> None:
    for table in run.TABLES.values():
        assert (page.HERE / f"{table.script}.py").exists()
        assert table.script in page.SECTIONS
        assert set(table.environments) <= peers.LISTS.keys()
    assert sum(table.minutes for table in run.TABLES.values()) <= 30  # with the peers there; on two cores


def test_every_peer_is_pinned() -> None:
    for environment, lists in peers.LISTS.items():
        assert all("==" in line for name, _ in lists for line in peers.pinned(name)), environment


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A folder of three scripts: one that fails, one that hangs, one that leaves a file."""
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)")
    (tmp_path / "works.py").write_text("import pathlib\npathlib.Path(__file__).with_suffix('.made').touch()")
    monkeypatch.setattr(run, "HERE", tmp_path)
    limits = {"fails": 1.0, "hangs": 0.5 / 60 / run.PATIENCE, "works": 1.0}
    return {name: run.Table(name, minutes) for name, minutes in limits.items()}


def test_a_table_that_fails_is_named_and_the_rest_is_made(
    tables: dict[str, run.Table], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = run.make(tables, full=False)
    assert (tmp_path / "works.made").exists()
    assert wrong == ["fails: ended with exit status 3", "hangs: stopped after 0 s"]
    assert "== works: made" in capfd.readouterr().out


def test_a_peer_that_does_not_install_is_named(tables: dict[str, run.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "prepare", lambda names: {name: ["higher==0.2.1"] for name in names})
    needs = {"works": run.Table("works", 1.0, beside=("torch",))}
    assert run.make(needs, full=False) == ["torch: higher==0.2.1 did not install"]


def test_a_full_run_has_other_arguments_only_where_there_are_some() -> None:
    table = run.Table("x", 1.0, arguments=("--short",), full=("--full",), full_minutes=9.0)
    assert table.command(full=False)[-1] == "--short"
    assert table.command(full=True)[-1] == "--full"
    assert table.limit(full=True) == 9 * table.limit(full=False)
    plain = run.Table("x", 1.0)
    assert plain.command(full=True) == plain.command(full=False)


@pytest.mark.parametrize(("first", "kept"), [(1.5, [0.25, 0.25, 0.25]), (4.5, [4.5])], ids=["compiles", "is too long"])
def test_a_first_call_that_compiles_is_not_what_a_table_shows(
    first: float, kept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only the case moves; its share is a second."""
    now, taken = [0.0], iter([first, *[0.25] * 3])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])

    def work(_: Any) -> None:
        now[0] += next(taken)

    harness.interleave([case := harness.Case("ours", {"all": work})], 3, budget=1.0)
    assert case.times["all"] == kept
