"""The core: perturb the cost, solve all samples in one call, and let a rule give the answer a derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from .. import calculus
from ..errors import UnsupportedError
from .estimate import Estimate
from .noise import Noise
from .oracle import Oracle
from .oracle_certificate import OracleCertificate
from .rule import Rule, Sample, perturb, solve_projected
from .zero_gradients import ZeroGradients


@dataclass(frozen=True)
class Call:
    """Everything about a perturbed solve that is no tensor.

    Attributes:
        oracle: the solver.
        rule: what comes out, and its derivative.
        certificate: where solves are counted.
        noise: how the cost is perturbed, ``None`` for not at all.
        zeros: what is done about gradients of zero, ``None`` where they are no sign of anything.
    """

    oracle: Oracle
    rule: Rule
    certificate: OracleCertificate
    noise: Noise | None = None
    zeros: ZeroGradients | None = None

    @property
    def refusal(self) -> str:
        """What the error of any other derivative says."""
        return (
            f"{self.certificate.what} estimates first derivatives in reverse mode only: the solution of a "
            "combinatorial problem is piecewise constant, and neither forward mode nor the derivative of an estimate "
            "means anything"
        )

    def sample(self, cost: Tensor, drawn: Tensor | None, target: Tensor | None, points: Tensor) -> Sample:
        """The forward pass that these tensors belong to."""
        return Sample(self.oracle, cost, self.noise, drawn, points, self.certificate, target)


def draw(
    oracle: Oracle, noise: Noise | None, cost: Tensor, samples: int, generator: torch.Generator | None
) -> Tensor | None:
    """The random numbers for a cost ``(*batch, *event)``, if any."""
    if not isinstance(cost, Tensor) or not cost.is_floating_point():
        oracle.validate(cost)
    return None if noise is None else noise.draw(cost, samples, generator)


@wrap_torch_function(lambda call, cost, drawn, target=None: (cost,))
def perturbed_solve(call: Call, cost: Tensor, drawn: Tensor | None, target: Tensor | None = None) -> Tensor:
    """The rule's output for the solutions of the perturbed costs, all of them found in one call of the oracle.

    Args:
        call: oracle, rule, noise.
        cost: ``(*batch, *event)``; gradients go there.
        drawn: the noise's random numbers ``(K, *batch, *event)``, ``None`` without noise.
        target: what the rule compares with ``(*batch, *event)``, if anything; a constant.

    Raises:
        InputError: the cost is none of the oracle's.
        UnsupportedError: a second derivative or forward mode is asked for.
    """
    output: Tensor
    output, _ = (_Perturbed if calculus.transforming() else _Eager).apply(call, cost, drawn, target)
    return output


class _Perturbed(torch.autograd.Function):
    """The output ``(*batch, ...)`` and, as a constant, the points ``(K, *batch, *event)``."""

    @staticmethod
    def forward(call: Call, cost: Tensor, drawn: Tensor | None, target: Tensor | None) -> tuple[Tensor, Tensor]:
        call.oracle.validate(cost)
        cost = cost.detach()
        sign = 1.0 if call.oracle.maximise else -1.0
        points = solve_projected(call.oracle, perturb(call.noise, cost, drawn, sign), call.certificate)
        return call.rule.output(call.sample(cost, drawn, target, points)), points

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.call, cost, drawn, target = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(cost, drawn, target, output[1])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None, _points: None) -> tuple[Tensor | None, ...]:
        if cotangent is None:
            return None, None, None, None
        # A plain backward pass needs no graph of itself, which costs as much as a small oracle.
        plain = not torch.is_grad_enabled() and not calculus.transforming()
        pulled = _Pulled.forward if plain else _Pulled.apply
        return None, pulled(ctx.call, cotangent, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        raise UnsupportedError(ctx.call.refusal)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], call: Call, *tensors: Tensor | None) -> Any:
        # A vmapped batch of problems is a larger batch, which the oracle solves in one call.
        return _Perturbed.apply(call, *_folded(tensors, in_dims[1:], info.batch_size, (1,))), (0, 1)


class _Eager(_Perturbed):
    """The same without ``torch.func``, whose form of a function costs as much to call as a small oracle."""

    setup_context = torch.autograd.Function.setup_context

    @staticmethod
    def forward(  # type: ignore[override]  # torch's other form
        ctx: Any, call: Call, cost: Tensor, drawn: Tensor | None, target: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        output = _Perturbed.forward(call, cost, drawn, target)
        _Perturbed.setup_context(ctx, (call, cost, drawn, target), output)
        return output


class _Pulled(Estimate):
    """The gradient ``(*batch, *event)`` that the rule makes of a cotangent; it has no derivative itself."""

    @staticmethod
    def forward(
        call: Call,
        cotangent: Tensor,
        cost: Tensor,
        drawn: Tensor | None,
        target: Tensor | None,
        points: Tensor,
    ) -> Tensor:
        cotangent, cost = cotangent.detach(), cost.detach()
        sample = call.sample(cost, drawn, target, points)
        finite = cotangent.isfinite()
        if not bool(finite.all()):  # no oracle takes that, and a scaler of gradients must see it
            lost = ~finite.unsqueeze(-1).flatten(cost.ndim - call.oracle.event_dims).all(-1)
            return torch.where(
                sample.spread(lost), torch.nan, call.rule.pull(sample, torch.where(finite, cotangent, 0.0))
            )
        gradient = call.rule.pull(sample, cotangent)
        if call.zeros is not None:
            call.zeros.note(call.rule, sample, cotangent, gradient)
        return gradient

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], call: Call, *tensors: Tensor | None) -> Any:
        return _Pulled.apply(call, *_folded(tensors, in_dims[1:], info.batch_size, (2, 4))), 0


def _folded(
    tensors: tuple[Tensor | None, ...], dims: tuple[int | None, ...], size: int, sampled: tuple[int, ...]
) -> list[Tensor | None]:
    """The mapped dimension in front, or behind that of the samples; a tensor without one is repeated."""
    found: list[Tensor | None] = []
    for place, (tensor, dim) in enumerate(zip(tensors, dims, strict=True)):
        if tensor is None:
            found.append(None)
            continue
        moved = calculus.lead(tensor, dim, size)
        found.append(moved.transpose(0, 1) if place in sampled else moved)
    return found
