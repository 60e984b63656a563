"""One file for nested tensors: written whole or not at all, read without executing anything."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bigrad.errors import RunError
from bigrad.rlhf import load_tree, save_tree

TREE: dict[Any, Any] = {
    "numbers": {0: 1, 1: 2**64 + 1, -5: -(10**40), "float": 0.1, "inf": float("inf"), "-0": -0.0},
    "words": ["", "ünï ☃", None, True, False],
    "pair": (1, (2.5, []), {}, ()),
    "tensors": [torch.randn(3, 4), torch.zeros(()), torch.zeros(0, 5), torch.arange(4), torch.ones(2).bool()],
    "kinds": [torch.ones(2, dtype=kind) for kind in (torch.float64, torch.bfloat16, torch.uint8)],
    "arrays": [np.arange(6.0).reshape(2, 3), np.arange(624, dtype=np.uint32), np.ones((2, 0), np.float32)],
    7: {"nested": {"deeper": torch.ones(1)}},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and repr(a) == repr(b)


def test_everything_comes_back(tmp_path: Path) -> None:
    save_tree(tmp_path / "tree", TREE)
    assert same(load_tree(tmp_path / "tree"), TREE)


@pytest.mark.parametrize("tree", [3, None, "word", [], {}, torch.ones(2), np.ones(3)])
def test_a_tree_of_one_leaf_comes_back(tree: Any, tmp_path: Path) -> None:
    save_tree(tmp_path / "tree", tree)
    assert same(load_tree(tmp_path / "tree"), tree)


def test_nan_comes_back(tmp_path: Path) -> None:
    save_tree(tmp_path / "tree", [float("nan"), torch.tensor(float("nan"))])
    number, tensor = load_tree(tmp_path / "tree")
    assert np.isnan(number)
    assert tensor.isnan()


def test_numpy_numbers_become_pythons(tmp_path: Path) -> None:
    save_tree(tmp_path / "tree", [np.float64(0.1), np.int64(3), np.bool_(True)])
    assert same(load_tree(tmp_path / "tree"), [0.1, 3, True])


def test_tensors_that_share_memory_or_need_gradients_come_back(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4).requires_grad_()
    save_tree(tmp_path / "tree", [whole, whole[1:], whole.T, whole])
    found = load_tree(tmp_path / "tree")
    assert same(found, [whole.detach(), whole[1:].detach(), whole.T.detach(), whole.detach()])


def test_other_readers_find_tensors_by_their_names(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    save_tree(tmp_path / "network.safetensors", OrderedDict(network.state_dict()))
    found = load_file(tmp_path / "network.safetensors")
    assert same({name: found[name] for name in network.state_dict()}, dict(network.state_dict()))


def test_places_that_read_alike_stay_apart(tmp_path: Path) -> None:
    tree = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1), "b'": torch.ones(2)}, 0: torch.ones(3), "0": torch.ones(4)}
    save_tree(tmp_path / "tree", tree)
    assert same(load_tree(tmp_path / "tree"), tree)


@pytest.mark.parametrize("odd", [object(), {1, 2}, b"bytes", 1j, lambda: 0])
def test_what_cannot_be_saved_is_refused(odd: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"a {type(odd).__name__} cannot be saved"):
        save_tree(tmp_path / "tree", {"odd": odd})
    assert list(tmp_path.iterdir()) == []


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tree(tmp_path / "tree", {"old": 1})
    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunError, match=r"tree could not be written .*No space left.*free some space.*--resume"):
        save_tree(tmp_path / "tree", TREE)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert load_tree(tmp_path / "tree") == {"old": 1}


def test_ctrl_c_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    save_tree(tmp_path / "tree", {"old": 1})
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_tree(tmp_path / "tree", TREE)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert load_tree(tmp_path / "tree") == {"old": 1}


def test_a_place_that_cannot_hold_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/tree could not be written.*choose another folder"):
        save_tree(tmp_path / "file" / "tree", TREE)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def forged(outline: object) -> bytes:
    """A sound safetensors file with one tensor ``a`` and an outline of our own."""
    header: dict[str, Any] = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header["__metadata__"] = {} if outline is None else {"outline": outline}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 4


SPOILT: dict[str, Callable[[bytes, Path], bytes]] = {
    "empty": lambda sound, bomb: b"",
    "cut in the header": lambda sound, bomb: sound[:40],
    "cut in the data": lambda sound, bomb: sound[:-1],
    "longer": lambda sound, bomb: sound + b"more",
    "text": lambda sound, bomb: b"this is no run",
    "pickle": lambda sound, bomb: pickle.dumps(Bomb(bomb)),
    "pickle behind a sound file": lambda sound, bomb: sound + pickle.dumps(Bomb(bomb)),
    "no outline": lambda sound, bomb: forged(None),
    "an outline that is no JSON": lambda sound, bomb: forged("{"),
    "an outline too deep to read": lambda sound, bomb: forged("[" * 100_000),
    "an outline of something else": lambda sound, bomb: forged('{"a": 1, "b": 2}'),
    "a dictionary without pairs": lambda sound, bomb: forged('{"dict": [1, 2]}'),
    "a dictionary with odd keys": lambda sound, bomb: forged('{"dict": [[[1], 2]]}'),
    "a list that is none": lambda sound, bomb: forged('{"list": 3}'),
    "a tensor that is missing": lambda sound, bomb: forged('{"tensor": "b"}'),
    "a kind that does not exist": lambda sound, bomb: forged('{"call": "os.system"}'),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_or_foreign_file_is_refused_and_nothing_runs(how: str, tmp_path: Path) -> None:
    path, bomb = tmp_path / "tree", tmp_path / "bomb"
    save_tree(path, TREE)
    path.write_bytes(SPOILT[how](path.read_bytes(), bomb))
    with pytest.raises(RunError, match=r"tree is damaged or was not written by bigrad.*restore it or start anew"):
        load_tree(path)
    assert not bomb.exists()


def test_the_bomb_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "bomb")))
    assert (tmp_path / "bomb").exists()


def test_a_torch_file_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"bomb": Bomb(tmp_path / "bomb")}, tmp_path / "tree")
    with pytest.raises(RunError, match="tree is damaged"):
        load_tree(tmp_path / "tree")
    assert not (tmp_path / "bomb").exists()


def test_a_forged_but_sound_outline_is_read(tmp_path: Path) -> None:
    """So the refusals above are for the right reason."""
    (tmp_path / "tree").write_bytes(forged('{"tensor": "a"}'))
    assert same(load_tree(tmp_path / "tree"), torch.zeros(1))


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_file_or_a_folder_in_its_place_is_named(there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "tree").mkdir()
    with pytest.raises(RunError, match="tree"):
        load_tree(tmp_path / "tree")
