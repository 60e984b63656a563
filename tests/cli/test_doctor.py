"""``bigrad doctor`` tells what is there, what is missing and how to get it."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

import bigrad
from bigrad.cli import main

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["doctor", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found | {"parts": {part["extra"]: part for part in found["parts"]}}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make packages look as if they were never installed."""
    find = Distribution.from_name

    def hide(*packages: str) -> None:
        def from_name(name: str) -> Distribution:
            if name in packages:
                raise PackageNotFoundError(name)
            return find(name)

        monkeypatch.setattr(Distribution, "from_name", staticmethod(from_name))

    return hide


def test_lists_versions_devices_and_every_extra(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys)
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"].keys()
    assert found["core"]["torch"] == torch.__version__
    assert found["core"]["bigrad"] == bigrad.__version__
    assert found["devices"]["cpu"].startswith(f"{torch.get_num_threads()} threads")
    assert found["parts"].keys() == extras - {"all", "dev"}
    assert all(part["packages"] and part["purpose"] for part in found["parts"].values())


def test_a_missing_package_gets_its_pip_line(without: Any, capsys: pytest.CaptureFixture[str]) -> None:
    without("tyro")
    part = report(capsys)["parts"]["cli"]
    assert part["missing"] == ["tyro"]
    assert part["packages"]["rich"]
    main(["doctor"])
    assert 'missing  tyro: pip install "bigrad[cli]"' in capsys.readouterr().out


def test_a_sound_installation_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "Warning" not in capsys.readouterr().out


def test_warns_of_a_torch_that_is_too_old(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch, "__version__", "2.8.1+cu126")
    assert main(["doctor"]) == 1
    assert "Warning: torch 2.8.1+cu126 is older" in capsys.readouterr().out


def test_warns_of_the_package_functorch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    find = Distribution.from_name
    stray = staticmethod(lambda name: find("torch" if name == "functorch" else name))
    monkeypatch.setattr(Distribution, "from_name", stray)
    assert main(["doctor"]) == 1
    assert "pip uninstall functorch" in capsys.readouterr().out


def test_warns_of_a_source_tree_that_is_not_installed(without: Any, capsys: pytest.CaptureFixture[str]) -> None:
    without("bigrad")
    assert main(["doctor"]) == 1
    assert "pip install -e ." in capsys.readouterr().out
