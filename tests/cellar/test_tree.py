"""Nested tensors become one flat matrix and come back unchanged."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bigrad import InputError
from bigrad.tree import Arguments, Structure, tensors_of, tree_map

D = torch.float64


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def example(*batch: int) -> dict[str, Any]:
    """A dict, a tuple, a named tuple and a list around tensors of every small rank."""
    draw = torch.Generator().manual_seed(0)
    new = lambda *shape: torch.randn((*batch, *shape), generator=draw, dtype=D)  # noqa: E731  # a name for a one-liner
    return {"matrix": new(2, 3), "pair": Pair(new(4), new()), "more": (new(1), [new(2, 1, 2)])}


@pytest.mark.parametrize("batch", [(), (5,), (1,), (0,), (3, 2)])
def test_unravel_undoes_ravel(batch: tuple[int, ...]) -> None:
    tree = example(*batch)
    structure = Structure.of(tree, len(batch))
    flat = structure.ravel(tree)
    assert flat.shape == (*batch, 6 + 4 + 1 + 1 + 4)
    back = structure.unravel(flat)
    assert isinstance(back["pair"], Pair)
    for found, wanted in zip(tensors_of(back, "back"), tensors_of(tree, "tree"), strict=True):
        assert torch.equal(found, wanted)


def test_one_problem_of_a_batch_keeps_its_numbers_together() -> None:
    tree = example(3)
    structure = Structure.of(tree, 1)
    alone = tree_map(lambda leaf: leaf[1], tree)
    assert torch.equal(structure.ravel(tree)[1], Structure.of(alone).ravel(alone))


def test_a_structure_takes_other_batches_than_its_own() -> None:
    structure = Structure.of(example())
    assert structure.ravel(example(2, 3)).shape == (2, 3, 16)


def test_a_lone_number_is_one_unknown() -> None:
    structure = Structure.of(torch.tensor(2.0, dtype=D))
    assert structure.ravel(torch.tensor(3.0)).shape == (1,)
    assert structure.unravel(torch.ones(1)).shape == ()


def test_ravel_lets_gradients_through() -> None:
    tree = {"a": torch.ones(2, dtype=D, requires_grad=True), "b": torch.ones((), dtype=D, requires_grad=True)}
    weight = torch.arange(3.0, dtype=D)
    (Structure.of(tree).ravel(tree) * weight).sum().backward()
    assert torch.equal(torch.cat([tree["a"].grad, tree["b"].grad[None]]), weight)


def test_another_nesting_is_refused() -> None:
    with pytest.raises(InputError, match="structure"):
        Structure.of({"a": torch.ones(2)}).ravel([torch.ones(2)])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (), (2, 2)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="wanted"):
        Structure.of(torch.ones(2, 4)).ravel(torch.ones(shape))


def test_arguments_keep_what_is_no_tensor_in_its_place() -> None:
    first, second = torch.ones(2), torch.zeros(3)
    given = (first, None, "linear", {"power": 2, "weight": second}, [], 1.5)
    arguments = Arguments.of(given)
    assert [id(tensor) for tensor in arguments.tensors] == [id(first), id(second)]
    back = arguments.rebuild((second, first))
    assert back[1:3] == (None, "linear")
    assert back[4:] == ([], 1.5)
    assert back[3]["power"] == 2
    assert back[0] is second
    assert back[3]["weight"] is first


def test_no_arguments_at_all() -> None:
    assert Arguments.of(()).rebuild(()) == ()


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        (None, "found none"),
        ({}, "found none"),
        (1.0, "found float"),
        ([torch.ones(1), "no"], "found str"),
        (torch.ones(2, dtype=torch.int64), "int64"),
        (torch.ones(2, dtype=torch.bool), "bool"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        ((torch.ones(2), torch.ones(2, dtype=D)), "mixes torch.float32 on cpu and torch.float64 on cpu"),
        ((torch.ones(2), torch.ones(2, device="meta")), "mixes torch.float32 on cpu and torch.float32 on meta"),
    ],
)
def test_what_is_not_nested_real_tensors_is_refused_by_name(tree: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=f"^start.*{complaint}"):
        tensors_of(tree, "start")
