"""A user's own solver: in either language, batched or not, in this process or in others."""

from __future__ import annotations

import copy
import gc
import importlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrad import InputError, SolveError
from bigrad.combinatorial import Oracle, TopK, oracle

from .feasible import D, draw

SOLVERS = """
import os
import time
import numpy as np

def cheapest(cost):
    return np.eye(cost.shape[-1])[cost.argmin(-1)]

def cheapest_in_torch(cost):
    import torch
    assert torch.get_num_threads() == 1
    return torch.nn.functional.one_hot(cost.argmin(-1), cost.shape[-1])

def process(cost):
    time.sleep(0.02)
    return np.full(cost.shape, os.getpid())

def slow(cost):
    time.sleep(0.02)
    return cheapest(cost)

def picky(cost):
    if cost[0] < 0:
        raise ArithmeticError("no solution")
    return cost

def dies(cost):
    os._exit(3)
"""


@pytest.fixture
def solvers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of solvers that another process can import."""
    (tmp_path / "own_solvers.py").write_text(SOLVERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_solvers")
    del sys.modules["own_solvers"]


def truth(cost: Tensor) -> Tensor:
    return TopK(1, maximise=False)(cost)


def workers() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_each_language_and_shape(solvers: ModuleType, numpy: bool, batched: bool, dtype: torch.dtype) -> None:
    function = solvers.cheapest if numpy else lambda cost: cost.argmin(-1)[..., None] == torch.arange(5)
    best = oracle(function, event_dims=1, batched=batched, numpy=numpy)
    for shape in ((5,), (3, 5), (2, 3, 5), (0, 5)):
        cost = draw(*shape, dtype=dtype)
        y = best(cost)
        assert y.dtype == dtype
        assert torch.equal(y, truth(cost))


@pytest.mark.parametrize(("numpy", "batched"), [(True, False), (True, True), (False, True)])
def test_processes_give_the_same_answers(solvers: ModuleType, numpy: bool, batched: bool) -> None:
    function = solvers.cheapest if numpy else solvers.cheapest_in_torch
    shared = oracle(function, event_dims=1, batched=batched, numpy=numpy, workers=2)
    try:
        for count in (1, 2, 7):
            cost = draw(count, 5)
            assert torch.equal(shared(cost), truth(cost))
    finally:
        shared.close()


def test_processes_start_late_work_at_once_and_end(solvers: ModuleType) -> None:
    before = workers()
    shared = oracle(solvers.process, event_dims=1, workers=2)
    assert workers() == before
    found = set(shared(draw(16, 1)).long().flatten().tolist())
    assert found == workers() - before
    assert len(found) == 2
    assert os.getpid() not in found
    assert set(shared(draw(16, 1)).long().flatten().tolist()) == found  # the same ones again
    shared.close()
    assert workers() == before
    shared(draw(2, 1))  # new ones
    assert workers() > before
    del shared
    gc.collect()
    deadline = time.monotonic() + 20
    while workers() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers() == before


def test_copies_have_processes_of_their_own(solvers: ModuleType) -> None:
    shared = oracle(solvers.cheapest, event_dims=1, workers=1)
    cost = draw(3, 4)
    try:
        shared(cost)
        for other in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
            before = workers()
            assert torch.equal(other(cost), truth(cost))
            assert len(workers() - before) == 1
            assert repr(other) == repr(shared)
            other.close()
    finally:
        shared.close()


def test_a_forked_process_does_not_wait_for_its_parents_workers(
    solvers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = oracle(solvers.process, event_dims=1, workers=1)
    first = float(shared(draw(1, 1)))
    monkeypatch.setattr("bigrad.combinatorial.pool.os", SimpleNamespace(getpid=lambda: -1))
    assert float(shared(draw(1, 1))) != first
    shared.close()


@pytest.mark.parametrize("count", [0, 1])
def test_an_error_of_the_function_is_passed_on(solvers: ModuleType, count: int) -> None:
    cost = torch.ones(6, 2)
    cost[4] = -1
    picky = oracle(solvers.picky, event_dims=1, workers=count)
    try:
        with pytest.raises(ArithmeticError, match="no solution") as caught:
            picky(cost)
        assert "oracle(picky" in caught.value.__notes__[0]
        assert "after 4 of 6 problems" in caught.value.__notes__[0]
        assert torch.equal(picky(cost.abs()), cost.abs())  # it goes on
    finally:
        picky.close()


def test_a_dead_process_is_reported_and_replaced(solvers: ModuleType) -> None:
    mortal = oracle(solvers.dies, event_dims=1, workers=1)
    for _ in range(2):
        with pytest.raises(SolveError, match=r"a worker process has died.*workers=0 solves in this process"):
            mortal(draw(2, 3))
    mortal.function = solvers.cheapest
    cost = draw(2, 3)
    assert torch.equal(mortal(cost), truth(cost))
    mortal.close()


def test_what_a_process_cannot_have_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"<lambda> cannot be sent to a worker process.*use workers=0"):
        oracle(lambda cost: cost, event_dims=1, workers=2)
    for event_dims, count in ((-1, 0), (1, -2)):
        with pytest.raises(InputError, match="wanted none below 0"):
            oracle(abs, event_dims=event_dims, workers=count)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda cost: cost[:-1], r"of shape \(2,\); wanted real numbers of the cost's shape \(3,\)"),
        (lambda cost: cost.sum(), r"of shape \(\)"),
        (lambda cost: cost + 1j, "complex"),
        (lambda cost: cost / 0, "3 entries that are infinite or NaN; wanted finite ones: let it raise"),
        (lambda cost: None, "wanted real numbers|can't convert"),
    ],
)
@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_answers_are_checked(answer: Any, message: str, numpy: bool) -> None:
    with pytest.raises((InputError, TypeError), match=message) as caught:
        oracle(answer, event_dims=1, numpy=numpy)(torch.ones(2, 3))
    assert "after 0 of 2 problems" in caught.value.__notes__[0]


def test_answers_in_any_form_are_taken() -> None:
    cost = draw(4, 3)
    reused = np.empty(3)

    def into_one_array(one: Any) -> Any:
        reused[:] = one
        return reused

    assert torch.equal(oracle(into_one_array, event_dims=1)(cost), cost)
    assert torch.equal(oracle(lambda one: one.tolist(), event_dims=1)(cost), cost)
    assert torch.equal(oracle(lambda one: one[::-1], event_dims=1)(cost), cost.flip(-1))
    assert oracle(lambda one: one > 0, event_dims=1)(cost).dtype == D
    assert torch.equal(oracle(lambda one: torch.from_numpy(one), event_dims=1)(cost), cost)
    assert torch.equal(oracle(lambda one: one.clone().requires_grad_(), event_dims=1, numpy=False)(cost), cost)
    assert torch.equal(oracle(lambda one: -one, event_dims=0)(cost), -cost)


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_a_function_may_change_its_argument(numpy: bool, batched: bool) -> None:
    def greedy(one: Any) -> Any:
        one[..., 0] = 7
        return one

    cost = torch.zeros(2, 3)
    y = oracle(greedy, event_dims=1, numpy=numpy, batched=batched)(cost)
    assert y[:, 0].tolist() == [7, 7]
    assert not cost.any()
    y.zero_()


def test_it_is_an_oracle_like_the_others() -> None:
    best = oracle(lambda cost: -cost, event_dims=2, maximise=True, nonnegative=True)
    assert isinstance(best, Oracle)
    assert (best.event_dims, best.maximise, best.nonnegative) == (2, True, True)
    with pytest.raises(InputError, match="wanted costs >= 0"):
        best(-torch.ones(2, 2))
    with pytest.raises(InputError, match="with 2 dimensions beyond the batch"):
        best(torch.ones(2))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Not a hang, and not a hundred processes."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import numpy as np, torch
            from bigrad.combinatorial import oracle
            def solve(cost): return cost
            oracle(solve, event_dims=1, workers=1)(torch.ones(2, 3))
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "SolveError: a worker process has died, or could not start" in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr


def test_a_program_ends_with_its_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            def solve(cost): return cost
            if __name__ == "__main__":
                import torch
                from bigrad.combinatorial import oracle
                shared = oracle(solve, event_dims=1, workers=2)
                print(shared(torch.ones(2, 3)).sum().item())
        """)
    )
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6.0\n", "")


@pytest.mark.slow
def test_two_processes_share_the_work(solvers: ModuleType) -> None:
    """Solvers that wait, so that the cores of the machine do not matter."""
    cost, seconds = draw(64, 5), {}
    for count in (0, 2):
        best = oracle(solvers.slow, event_dims=1, workers=count)
        best(cost)
        start = time.perf_counter()
        best(cost)
        seconds[count] = time.perf_counter() - start
        best.close()
    assert seconds[0] > 1.6 * seconds[2]
