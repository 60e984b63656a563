"""SoftBellman: batches against a loop of value iteration, a million states, and cold and patient agents.

python benchmarks/soft_bellman.py [--quick | --full]

The million takes a quarter of an hour and is left to ``--full``.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from harness import Case, Row, child, interleave, one_thread, options, relative_error, report, verdict
from torch import Tensor

from bigrad.layers import SoftBellman
from bigrad.mdp import SparseTransition
from bigrad.problems import random_mdp

D = torch.float64
TEMPERATURE, ACTIONS = 0.1, 4
Solved = tuple[Tensor, Tensor]  # values, and the gradient in the reward


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loop(reward: Tensor, transition: Tensor, discount: float, residual: float, weight: Tensor) -> Solved:
    """Plain soft value iteration for one problem after the other, and its adjoint by the same iteration."""
    values, slopes = [], []
    for place, r in enumerate(reward):
        P = transition if transition.ndim == 3 else transition[place]
        pairs = P.flatten(0, 1)
        v = r.new_zeros(len(P))
        while True:
            q = torch.addmv(r.flatten(), pairs, v, alpha=discount).reshape(r.shape)
            fresh = TEMPERATURE * torch.logsumexp(q / TEMPERATURE, -1)
            gap = (fresh - v).abs().amax()
            if gap <= residual:
                break
            v = fresh
        policy = torch.softmax(q / TEMPERATURE, -1)
        inner = policy * weight
        right = inner.sum(-1) - discount * (inner.flatten() @ pairs)
        w, limit = right, residual * right.abs().amax()
        while True:
            fresh = right + discount * ((policy * w[:, None]).flatten() @ pairs)
            gap, w = (fresh - w).abs().amax(), fresh
            if gap <= limit:
                break
        values.append(v)
        slopes.append(policy * (weight - w[:, None]) / TEMPERATURE)
    return torch.stack(values), torch.stack(slopes)


def by_layer(reward: Tensor, transition: Tensor, discount: float, weight: Tensor, residuals: list[float]) -> Solved:
    """One call of the layer for the whole batch; notes the residual of its answer."""
    layer, free = SoftBellman(transition, discount=discount, temperature=TEMPERATURE), reward.clone().requires_grad_()
    solution = layer(free)
    (slope,) = torch.autograd.grad((weight * solution.policy).sum(), free)
    assert layer.certificate is not None
    residuals.append(float(layer.certificate.stationarity.max()))
    return solution.value.detach(), slope


def batches(quick: bool) -> list[Row]:
    """256 rewards on one process of 100 states, and 256 processes."""
    count, states = (8, 20) if quick else (256, 100)
    rows = []
    for kind, target in (("rewards on one MDP", 8.0), ("distinct MDPs", 1.0)):
        for discount in (0.9,) if quick else (0.5, 0.9, 0.99):
            shape = () if target > 1 else (count,)
            chance = -torch.log(torch.rand(*shape, states, ACTIONS, states, generator=draw(0), dtype=D))
            transition = chance / chance.sum(-1, keepdim=True)
            reward = torch.randn(count, states, ACTIONS, generator=draw(1), dtype=D)
            weight = torch.randn(states, ACTIONS, generator=draw(2), dtype=D)
            residuals: list[float] = []
            given = (reward, transition, discount)
            whole = Case("layer", {"all": lambda _, g=given, w=weight, n=residuals: by_layer(*g, w, n)})
            # The layer ends at rounding error: the loop is asked for the tolerance only, which is less.
            few = max(count // 16, 1)  # problems of the loop that are timed; each takes as long as the next
            some = (reward[:few], transition if shape == () else transition[:few], discount)
            plain = Case("loop", {"all": lambda _, g=some, w=weight: by_loop(*g, 1e-10, w)})
            interleave([whole, plain], 1 if quick else 3, 30.0)
            looped = plain.milliseconds("all") * count / few
            ratio = looped / whole.milliseconds("all")
            row: Row = {"work": f"{count} {kind}", "discount": discount, "layer ms": whole.milliseconds("all")}
            row |= {"loop ms": looped, "times faster": ratio, "residual": max(residuals)}
            row["gradients differ by"] = relative_error(whole.last[1][:few], plain.last[1])
            rows.append(row | {"target": target, "verdict": verdict(target, ratio)})
    return rows


def sparse_process(states: int, reach: int) -> SparseTransition:
    """Five successors of each pair: anywhere, or among the nearest ``2 reach + 1`` states."""
    rows, successors = states * ACTIONS, 5
    if reach:
        near = torch.stack([torch.randperm(2 * reach + 1, generator=draw(k))[:successors] for k in range(997)])
        own = torch.arange(states).repeat_interleave(ACTIONS)[:, None]
        col = (own + near[torch.randint(997, (rows,), generator=draw(0))] - reach) % states
    else:  # one in each fifth of the states, so that none comes twice
        fifth = states // successors
        col = torch.randint(fifth, (rows, successors), generator=draw(0)) + fifth * torch.arange(successors)
    chance = torch.rand(rows, successors, generator=draw(1), dtype=D)
    chance = chance / chance.sum(-1, keepdim=True)
    crow = torch.arange(0, rows * successors + 1, successors)
    return SparseTransition(crow, col.sort(-1).values.flatten(), chance.flatten())


def measure_sparse(states: int, reach: int) -> Row:
    """One hyper-gradient in this process."""
    one_thread()
    kernel = sparse_process(states, reach)
    reward = torch.randn(states, ACTIONS, generator=draw(2), dtype=D).requires_grad_()
    layer = SoftBellman(kernel, discount=0.99, temperature=TEMPERATURE)
    forward, backward = [], []
    for _ in range(1 if states > 20_000 else 3):
        start = time.perf_counter()
        policy = layer(reward).policy
        middle = time.perf_counter()
        torch.autograd.grad((policy * torch.linspace(0, 1, ACTIONS, dtype=D)).sum(), reward)
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
        del policy
    # The limit: a policy has to be multiplied by, and neither the vectors nor the places fit a cache for ever.
    matrix = torch.sparse_csr_tensor(kernel.crow, kernel.col, kernel.values, (states * ACTIONS, states))
    v, bare = torch.ones(states, dtype=D), []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ v
        bare.append(time.perf_counter() - start)
    certificate = layer.certificate
    assert certificate is not None
    assert certificate.adjoint is not None
    row: Row = {"states": states, "successors": f"within {reach}" if reach else "anywhere"}
    row |= {"forward s": min(forward), "backward s": min(backward), "backward / forward": min(backward) / min(forward)}
    row |= {"bare product s": min(bare), "in bare products": (min(forward) + min(backward)) / min(bare)}
    row |= {"steps": int(certificate.steps), "adjoint steps": int(certificate.adjoint.steps)}
    row |= {"residual": float(certificate.stationarity), "adjoint residual": float(certificate.adjoint.stationarity)}
    return row | {"peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def sparse(quick: bool, full: bool) -> list[Row]:
    """One hyper-gradient of a sparse process, each in a process of its own."""
    rows: list[Row] = []
    for reach in (0, 100):
        first = None
        for states in (1_000, 2_000) if quick else (10_000, 100_000, *[1_000_000] * full):
            row = child(__file__, "sparse", states, reach, timeout=580.0)
            if "failure" not in row:
                total = row["forward s"] + row["backward s"]
                first = first or (states, total, row["bare product s"])
                if states > first[0]:
                    wider = math.log(states / first[0])
                    row["exponent"] = math.log(total / first[1]) / wider
                    row["exponent of a bare product"] = math.log(row["bare product s"] / first[2]) / wider
                good = row["backward / forward"] <= 1.5 and row["peak GiB"] <= 8
                row["verdict"] = "pass" if good else "falls short"
            rows.append(row)
    return rows


def edges(quick: bool) -> list[Row]:
    """The gradient at low temperatures and high discounts against dense algebra at the same policy."""
    rows = []
    states = 20 if quick else 200
    mdp = random_mdp(draw(0), states=states, actions=ACTIONS, parameters=2)
    reward, P = mdp.reward(torch.ones(2, dtype=D)).requires_grad_(), mdp.transition
    weight = torch.randn(states, ACTIONS, generator=draw(1), dtype=D)
    for temperature in (1e-3, 1.0, 1e3):
        for discount in (0.99, 0.999):
            layer = SoftBellman(P, discount=discount, temperature=temperature)
            policy = layer(reward).policy
            (found,) = torch.autograd.grad((weight * policy).sum(), reward)
            pi = policy.detach()
            inner = pi * weight
            right = inner.sum(-1) - discount * torch.einsum("sat,sa->t", P, inner)
            moves = torch.einsum("sa,sat->st", pi, P)
            w = torch.linalg.solve((torch.eye(states, dtype=D) - discount * moves).T, right)
            error = relative_error(found, pi * (weight - w[:, None]) / temperature)
            row: Row = {"temperature": temperature, "discount": discount, "error": error}
            assert layer.certificate is not None
            row["residual"] = float(layer.certificate.stationarity)
            rows.append(row | {"steps": int(layer.certificate.steps), "verdict": verdict(error, 1e-6)})
    return rows


def main(arguments: list[str]) -> Any:
    """A child measures one sparse process; else all tables."""
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    if arguments[:1] == ["sparse"]:
        return print(json.dumps(measure_sparse(int(arguments[1]), int(arguments[2]))))
    chosen = options(__doc__, Path(__file__).stem)
    tables = {"batches": batches, "sparse": lambda quick: sparse(quick, chosen.full), "edges": edges}
    return report(chosen, tables)


if __name__ == "__main__":
    main(sys.argv[1:])
