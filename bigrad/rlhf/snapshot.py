"""Nested tensors, arrays and numbers in one file: written whole or not at all, read without executing anything."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from ..errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader only ever finds the old content or the whole new one.

    Raises:
        RunError: it could not be written; what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:  # Ctrl-C leaves nothing behind either
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{path} could not be written ({len(content)} bytes): {error.strerror or error}. What was saved before is "
            "intact: free some space or choose another folder, and continue with --resume"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: the file is missing or no JSON.
    """
    return _read(path, json.loads)


def write_yaml(path: Path, content: Any) -> None:
    """Write YAML atomically: plain numbers, strings, lists and dictionaries in their order."""
    write_atomically(path, yaml.safe_dump(content, sort_keys=False).encode())


def read_yaml(path: Path) -> Any:
    """Read YAML; nothing in it is executed.

    Raises:
        RunError: the file is missing or no YAML.
    """
    return _read(path, yaml.safe_load)


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}. Is this the folder of a run?") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}. Remove the folder and start anew") from error


def save_tree(path: Path, tree: Any) -> None:
    """Save nested dicts and lists of tensors, arrays, numbers, strings and None as safetensors with a JSON outline.

    Each tensor is named after its place, so that other readers of safetensors find it too.
    """
    tensors: dict[str, Tensor] = {}
    outline = json.dumps(_outline(tree, tensors, ()))
    write_atomically(path, save(tensors, metadata={"outline": outline}))


def load_tree(path: Path) -> Any:
    """What :func:`save_tree` saved, on the CPU.

    Raises:
        RunError: the file is missing, damaged or of another kind.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        return _rebuild(json.loads(metadata["outline"]), tensors)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist. Is this the folder of a run?") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} is damaged or was not written by bigrad ({error}): restore it or start anew") from error


def _outline(value: Any, tensors: dict[str, Tensor], place: tuple[Any, ...]) -> Any:
    if isinstance(value, dict):
        # Optimizer states have integer keys: pairs keep the kind of each key.
        return {"dict": [[key, _outline(item, tensors, (*place, key))] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_outline(item, tensors, (*place, index)) for index, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, Tensor | np.ndarray):
        key = ".".join(map(str, place))
        while key in tensors:
            key += "'"
        if isinstance(value, np.ndarray):
            tensors[key] = torch.from_numpy(value.copy())
            return {"array": key}
        tensors[key] = value.detach().cpu().clone().contiguous()
        return {"tensor": key}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be saved")


def _rebuild(outline: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(outline, dict):
        return outline
    ((kind, content),) = outline.items()
    if kind == "dict":
        return {key: _rebuild(item, tensors) for key, item in content}
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    return {"list": list, "tuple": tuple}[kind](_rebuild(item, tensors) for item in content)
