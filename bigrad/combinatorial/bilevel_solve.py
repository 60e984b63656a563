"""The core of two levels: solve both, and let a rule turn the answers' gradients into those of the costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..calculus import lead
from ..certificate import OnFailure
from ..errors import UnsupportedError
from .bilevel_certificate import BilevelCertificate
from .bilevel_oracle import BilevelOracle
from .estimate import Estimate

Pull = Callable[["Answer", Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class BilevelCall:
    """Everything about a two-level solve that is no tensor.

    Attributes:
        oracle: the solver.
        certificate: where solves are counted.
        on_failure: what is done about an answer that is not proven to be best.
        pull: the gradients of ``z`` and ``w`` for those of ``x`` and ``y``; ``None`` where the answers are constants.
    """

    oracle: BilevelOracle
    certificate: BilevelCertificate
    on_failure: OnFailure
    pull: Pull | None = None

    @property
    def refusal(self) -> str:
        """What the error of any other derivative says."""
        return (
            f"{self.certificate.what} estimates first derivatives in reverse mode only: both levels' points are "
            "piecewise constant, and neither forward mode nor the derivative of an estimate means anything"
        )

    def solve(self, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Both points ``(*batch, *event)``, counted, and with a proof unless ``on_failure`` does without."""
        shape = z.shape
        batch = shape[: len(shape) - self.oracle.event_dims]
        self.certificate.count(batch.numel(), z.numel(), 0)
        if batch.numel() == 0:
            return torch.zeros_like(z), torch.zeros_like(z)
        event = shape[len(batch) :]
        x, y, proof = self.oracle.search(z.reshape(-1, *event), w.reshape(-1, *event))
        if proof is not None:
            for name in ("status", "stationarity", "tolerance", "steps"):
                setattr(proof, name, getattr(proof, name).reshape(batch))
            self.certificate.proof = proof
            proof.enforce(self.on_failure)
        return x.reshape(shape), y.reshape(shape)


@dataclass(frozen=True)
class Answer:
    """One solve, in plain tensors ``(*batch, *event)``.

    Attributes:
        call: what solved.
        z, w: the costs.
        x, y: the points.
    """

    call: BilevelCall
    z: Tensor
    w: Tensor
    x: Tensor
    y: Tensor


def bilevel_solve(call: BilevelCall, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The leader's and the follower's points, for costs ``(*batch, *event)`` of one shape.

    Raises:
        InputError: the costs are none of the oracle's.
        SolveError: what was found is not proven to be best.
        UnsupportedError: a second derivative or forward mode is asked for.
    """
    x, y = _Solved.apply(call, z, w)
    return x, y


class _Solved(torch.autograd.Function):
    """Both points; constants where the call has no rule."""

    @staticmethod
    def forward(call: BilevelCall, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        call.oracle.validate(z, w)
        return call.solve(z.detach(), w.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.call, z, w = inputs
        if ctx.call.pull is None:
            ctx.mark_non_differentiable(*output)
        ctx.save_for_backward(z, w, *output)

    @staticmethod
    def backward(ctx: Any, g_x: Tensor, g_y: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Pulled.apply(ctx.call, g_x, g_y, *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        raise UnsupportedError(ctx.call.refusal)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], call: BilevelCall, *costs: Tensor) -> Any:
        # A vmapped batch of problems is a larger batch, which the oracle solves in one call.
        return _Solved.apply(call, *_folded(costs, in_dims[1:], info.batch_size)), (0, 0)


class _Pulled(Estimate):
    """The gradients of ``z`` and ``w`` that the rule makes of those of ``x`` and ``y``; they have no derivative."""

    @staticmethod
    def forward(call: BilevelCall, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        g_x, g_y, *rest = (tensor.detach() for tensor in tensors)
        assert call.pull is not None
        found = torch.stack([g_x, g_y]).unsqueeze(-1).flatten(1 + g_x.ndim - call.oracle.event_dims)
        lost = ~found.isfinite().all(-1).all(0)
        if not bool(lost.any()):
            return call.pull(Answer(call, *rest), g_x, g_y)
        # No oracle takes an infinite cost; a scaler of gradients must see it.
        lost = lost.reshape(lost.shape + (1,) * call.oracle.event_dims)
        pulled = call.pull(Answer(call, *rest), torch.where(lost, 0.0, g_x), torch.where(lost, 0.0, g_y))
        return torch.where(lost, torch.nan, pulled[0]), torch.where(lost, torch.nan, pulled[1])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], call: BilevelCall, *tensors: Tensor) -> Any:
        return _Pulled.apply(call, *_folded(tensors, in_dims[1:], info.batch_size)), (0, 0)


def _folded(tensors: tuple[Tensor, ...], dims: tuple[int | None, ...], size: int) -> list[Tensor]:
    """The mapped dimension in front of all of them."""
    return [lead(tensor, dim, size) for tensor, dim in zip(tensors, dims, strict=True)]
