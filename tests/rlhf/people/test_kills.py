"""A few kills out of the fifty of ``benchmarks/kill_labels.py``: real processes, no warning, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason='needs pip install "bigrad[label]"')
if sys.platform == "win32":
    pytest.skip("there is no fork and no kill -9 here", allow_module_level=True)

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def test_no_label_is_lost_and_none_doubled(tmp_path: Path) -> None:
    script, record = BENCHMARKS / "kill_labels.py", tmp_path / "record.json"
    command = [sys.executable, str(script), "--kills", "6", "--out", str(record)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(record.read_text())
    assert found["wrong"] == []
    assert sum(found["killed"].values()) == 6
    assert found["asked"] >= found["labelled_in_the_end"] > 0
