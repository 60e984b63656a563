"""Assignments."""

from __future__ import annotations

import sys

import pytest
import torch

from bigrad import InputError, MissingPackage
from bigrad.combinatorial import Assignment

from .feasible import D, assert_best, draw, matrices


@pytest.mark.parametrize("kind", ["normal", "whole"])
@pytest.mark.parametrize("maximise", [False, True])
def test_no_permutation_is_better(kind: str, maximise: bool) -> None:
    for size in range(1, 6):
        for dtype in (torch.float32, D):
            cost = draw(30, size, size, seed=size, kind=kind, dtype=dtype)
            assert_best(Assignment(maximise), cost, matrices(size), maximise)


def test_what_is_not_square_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\); wanted \(\*batch, n, n\)"):
        Assignment()(torch.ones(2, 3))


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingPackage, match=r'pip install "bigrad\[combinatorial\]"'):
        Assignment()(torch.ones(2, 2))
