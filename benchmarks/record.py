"""One JSON file a measurement: what was measured, with versions, hardware and the command that repeats it."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("bigrad", "torch", "optree")


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def graphics() -> dict[str, str]:
    """The GPU's name, where there is one."""
    found = torch.accelerator.current_accelerator()
    return {} if found is None else {"gpu": torch.get_device_module(found).get_device_name()}


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` and where it comes from."""
    origin = {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "hardware": {"cpu": processor(), "cores": os.cpu_count()} | graphics(),
        "command": " ".join(["python", *sys.argv]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(content | origin, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file in one go: whoever reads it meanwhile finds the old text or the new one."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)
