"""Methods for bilevel problems that are means over samples, as iterations that a caller may stop at any point.

Each yields its upper and its lower variable and the oracle calls so far: one call is a gradient of one sample's loss,
or one product of a vector with one sample's second derivatives. They know the problem by functions of a batch alone,
so that losses in torch and, through ``benchopt/``, in jax serve alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Point = tuple[Tensor, Tensor, int]  # the upper variable, the lower one, and the calls so far


@dataclass(frozen=True)
class Oracle:
    """What a method may ask of ``min_x F(y*(x), x)``, ``y*(x) = argmin_y G(y, x)``, both of them means.

    Attributes:
        inner: of ``(y, x, v, batch)``: ``G_y``, ``G_yy v`` and ``G_xy v``, means over a batch of the lower samples.
        outer: of ``(y, x, batch)``: ``F_y`` and ``F_x``, means over a batch of the upper samples.
        sizes: how many lower and upper samples there are.
        init: where the lower and the upper variable start.
    """

    inner: Callable[[Tensor, Tensor, Tensor, slice], tuple[Tensor, Tensor, Tensor]]
    outer: Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]
    sizes: tuple[int, int]
    init: tuple[Tensor, Tensor]


class Memory:
    """SAGA's memory: the last answer for each batch, and their mean."""

    def __init__(self, batches: int) -> None:
        self.kept: list[tuple[Tensor, ...] | None] = [None] * batches
        self.mean: tuple[Tensor, ...] = ()

    def corrected(self, place: int, fresh: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``fresh - kept + mean``, and ``fresh`` is kept from now on."""
        zeros = tuple(torch.zeros_like(part) for part in fresh)
        old, mean = self.kept[place] or zeros, self.mean or zeros
        change = tuple(new - before for new, before in zip(fresh, old, strict=True))
        self.kept[place] = fresh
        self.mean = tuple(m + step / len(self.kept) for m, step in zip(mean, change, strict=True))
        return tuple(m + step for m, step in zip(mean, change, strict=True))


def batches(size: int, batch: int, generator: torch.Generator) -> Iterator[tuple[int, slice]]:
    """Batches without end, in a new order each time round; samples that fill no batch are left out."""
    while True:
        for place in torch.randperm(size // batch, generator=generator).tolist():
            yield place, slice(batch * place, batch * (place + 1))


def single_loop(
    oracle: Oracle, step_size: float, outer_step: float, generator: torch.Generator, reduced: bool, batch: int = 64
) -> Iterator[Point]:
    r"""SOBA, or with ``reduced`` variance SABA: lower variable, adjoint and upper variable move at once.

    .. math:: y \gets y - \rho\, G_y, \quad v \gets v - \rho\, (G_{yy} v + F_y), \quad
        x \gets x - \gamma\, (G_{xy} v + F_x)

    Source: A framework for bilevel optimization that enables stochastic and global variance reduction algorithms
    (Dagréou, Ablin, Vaiter, Moreau, 2022).
    """
    (y, x), calls = oracle.init, 0
    v = torch.zeros_like(y)
    lower, upper = (min(batch, size) for size in oracle.sizes)
    memories = [Memory(size // part) for size, part in zip(oracle.sizes, (lower, upper), strict=True)]
    draws = [batches(size, part, generator) for size, part in zip(oracle.sizes, (lower, upper), strict=True)]
    while True:
        (place, rows), (other, columns) = map(next, draws)
        below, above = oracle.inner(y, x, v, rows), oracle.outer(y, x, columns)
        if reduced:
            below, above = memories[0].corrected(place, below), memories[1].corrected(other, above)
        slope, curved, crossed = below
        y, v = y - step_size * slope, v - step_size * (curved + above[0])
        x = x - outer_step * (crossed + above[1])
        calls += 3 * lower + 2 * upper
        yield x, y, calls


def implicit(oracle: Oracle, objective: Any, outer_step: float, rtol: float = 1e-8) -> Iterator[Point]:
    """Gradient descent on the value function, by bigrad's ``ArgMin`` and its implicit gradient, both started warm.

    Args:
        oracle: for the upper gradients and the sizes.
        objective: ``(y, x)``: the lower mean over all samples, in torch.
        outer_step: step length of the descent.
        rtol: tolerance of both solves.
    """
    from bigrad import gradients, linear, solvers
    from bigrad.layers import ArgMin

    evaluations = 0

    def counted(y: Tensor, x: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return objective(y, x)

    (y, x), calls = oracle.init, 0
    below, above = oracle.sizes
    layer = ArgMin(
        counted,
        y,
        solver=solvers.LBFGS(rtol=rtol, finish=None),
        gradient=gradients.Implicit(linear.CG(rtol=rtol)),
    )
    memory = gradients.WarmStart()
    while True:
        free, evaluations = x.clone().requires_grad_(), 0
        answer = layer(free, warm_start=memory)
        slope, direct = oracle.outer(answer.detach(), x, slice(0, above))
        (through,) = torch.autograd.grad(answer, free, slope)
        x = x - outer_step * (through + direct)
        assert layer.certificate is not None
        products = layer.certificate.adjoint.steps if layer.certificate.adjoint is not None else 0
        calls += below * (evaluations + int(products) + 1) + 2 * above
        yield x, answer.detach(), calls
