"""The pretend device catches what mixes devices, and computes what the CPU computes where nothing does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .pretend import count_syncs

MIXED = "Expected all tensors to be on the same device"
pytestmark = pytest.mark.usefixtures("device")


def draw(*shape: int, seed: int = 0, device: torch.device | str = "cpu", grad: bool = False) -> Tensor:
    """The same numbers on every device, drawn on the CPU."""
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.to(device).requires_grad_(grad)


class Forgetful(torch.autograd.Function):
    """Adds up each row; its backward forgets the device, in the way that ``slip`` names."""

    @staticmethod
    def forward(x: Tensor, slip: str) -> Tensor:
        return x.sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
        ctx.shape, ctx.slip = inputs[0].shape, inputs[1]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        if ctx.slip == "mixes":
            return cotangent[:, None] * torch.ones(ctx.shape, dtype=cotangent.dtype), None
        return torch.ones(ctx.shape, dtype=cotangent.dtype), None


class Whitened(nn.Module):
    """Centers its input, by a tensor that ``to`` does not know of unless it is registered."""

    def __init__(self, *, registered: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(3)) if registered else setattr(self, "mean", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


def assign(target: Tensor, index: Any, value: Any) -> Tensor:
    target = target.clone()
    target[index] = value
    return target


def hooked(x: Tensor) -> None:
    y = x * 2
    y.register_hook(lambda grad: grad @ torch.eye(3))
    y.sum().backward()


LONG, MASK = torch.tensor([0, 1]), torch.tensor([True, False])
MIXES: dict[str, Callable[[Tensor], Any]] = {  # x is a (2, 3) tensor on the device
    "eye in forward": lambda x: x @ torch.eye(3),
    "eye, the other way round": lambda x: torch.eye(2) @ x,
    "eye, added": lambda x: x.T @ x + torch.eye(3),
    "in place": lambda x: x.clone().add_(torch.ones(3)),
    "in place on the cpu": lambda x: torch.ones(2, 3).add_(x),
    "0-dim on the cpu, written": lambda x: torch.zeros(()).add_(x.sum()),
    "0-dim on the cpu, filled": lambda x: torch.zeros(()).masked_fill_(x.sum() > 0, 1.0),
    "0-dim, where the kernel checks": lambda x: torch.addmv(torch.zeros(()), x, x[0]),
    "matmul": lambda x: torch.ones(2, 2) @ x,
    "batched matmul": lambda x: x[None] @ torch.ones(1, 3, 2),
    "mv": lambda x: x @ torch.ones(3),
    "dot": lambda x: x[0] @ torch.ones(3),
    "einsum": lambda x: torch.einsum("ij,j->i", x, torch.ones(3)),
    "linear": lambda x: nn.functional.linear(x, torch.ones(1, 3)),
    "cat": lambda x: torch.cat([x, torch.ones(1, 3)]),
    "stack": lambda x: torch.stack([x[0], torch.ones(3)]),
    "where": lambda x: torch.where(x > 0, x, torch.zeros(2, 3)),
    "where, condition": lambda x: torch.where(torch.ones(2, 3, dtype=torch.bool), x, x),
    "masked_fill": lambda x: x.masked_fill(torch.ones(2, 3, dtype=torch.bool), 0.0),
    "lerp": lambda x: torch.lerp(x, x, torch.ones(2, 3)),
    "clamp": lambda x: x.clamp(min=torch.zeros(3)),
    "index_put, value": lambda x: assign(x, LONG, torch.zeros(2, 3)),
    "index_put, value on the device": lambda x: assign(torch.ones(2, 3), LONG, x),
    "gather": lambda x: x.gather(0, torch.zeros(1, 3, dtype=torch.long)),
    "scatter": lambda x: x.scatter(0, torch.zeros(1, 3, dtype=torch.long), x),
    "index_select": lambda x: x.index_select(0, LONG),
    "solve": lambda x: torch.linalg.solve(torch.eye(2), x),
    "lu_solve": lambda x: torch.linalg.lu_solve(*torch.linalg.lu_factor(torch.eye(2)), x),
    "foreach": lambda x: torch._foreach_add([x], [torch.ones(2, 3)]),
    "custom backward": lambda x: Forgetful.apply(x, "mixes").sum().backward(),
    "double backward": lambda x: (
        Forgetful.apply(torch.autograd.grad((x**3).sum(), x, create_graph=True)[0], "mixes").sum().backward()
    ),
    "a hook in backward": hooked,
    "unregistered buffer": lambda x: Whitened(registered=False).to(x.device)(x),
    "vmap": lambda x: torch.vmap(lambda row: row + torch.ones(3))(x),
    "vjp": lambda x: torch.func.vjp(lambda y: y @ torch.ones(3), x),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_is_caught(device: torch.device, name: str) -> None:
    x = torch.arange(6.0).reshape(2, 3).to(device).requires_grad_()
    with pytest.raises(RuntimeError, match=MIXED):
        MIXES[name](x)


OTHER_SLIPS: dict[str, tuple[type[Exception], str, Callable[[Tensor], Any]]] = {
    "numpy": (TypeError, "can't convert pretend:0 device type tensor", lambda x: x.detach().numpy()),
    "gradient": (
        RuntimeError,
        "expected device pretend:0 but got cpu",
        lambda x: Forgetful.apply(x, "").sum().backward(),
    ),
    "index": (RuntimeError, "indices should be either on cpu", lambda x: torch.ones(2)[LONG.to(x.device)]),
    "mask": (RuntimeError, "indices should be either on cpu", lambda x: torch.ones(2)[MASK.to(x.device)]),
    "assignment": (RuntimeError, "indices should be", lambda x: assign(torch.ones(2), LONG.to(x.device), 0.0)),
    "cpu generator": (
        RuntimeError,
        "Expected a 'pretend' device type for generator but found 'cpu'",
        lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
    ),
    "device generator": (
        RuntimeError,
        "Expected a 'cpu' device type for generator but found 'pretend'",
        lambda x: torch.rand(2, generator=torch.Generator(x.device)),
    ),
}


@pytest.mark.parametrize("name", OTHER_SLIPS)
def test_another_slip_is_caught(device: torch.device, name: str) -> None:
    error, match, slip = OTHER_SLIPS[name]
    with pytest.raises(error, match=match):
        slip(torch.ones(2, 3, device=device, requires_grad=True))


ALLOWED: dict[str, Callable[[Tensor], Tensor]] = {  # as CUDA allows
    "0-dim cpu tensor": lambda x: torch.tensor(2.0) * x + torch.tensor(1),
    "0-dim in where": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "0-dim, assigned": lambda x: assign(x, LONG, torch.tensor(7.0, dtype=x.dtype)),
    "cpu index": lambda x: x[LONG],
    "cpu mask": lambda x: x[MASK],
    "cpu index, assigned": lambda x: assign(x, LONG, x * 2),
    "copied in": lambda x: x.clone().copy_(torch.ones(2, 3, dtype=torch.float64)),
    "slice copied in": lambda x: assign(x, 1, torch.ones(3)),
    "registered buffer": lambda x: Whitened(registered=True).to(x.device)(x),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_allows_passes(device: torch.device, name: str) -> None:
    x = draw(2, 3)
    result = ALLOWED[name](x.to(device))
    assert result.device == device
    assert torch.equal(result.cpu(), ALLOWED[name](x))


FACTORIES: dict[str, Callable[[Any], Tensor]] = {
    "zeros": lambda device: torch.zeros(2, 3, device=device),
    "full": lambda device: torch.full((2,), 7, device=device),
    "eye": lambda device: torch.eye(3, 4, device=device),
    "arange": lambda device: torch.arange(1, 9, 2, device=device),
    "linspace": lambda device: torch.linspace(0, 1, 5, device=device),
    "tensor": lambda device: torch.tensor([1.0, 2.0], device=device),
    "tril_indices": lambda device: torch.tril_indices(3, 3, device=device),
    "new_zeros": lambda device: torch.ones(1, dtype=torch.float64, device=device).new_zeros(3),
    "new_tensor": lambda device: torch.ones(1, device=device).new_tensor([3.0]),
    "zeros_like": lambda device: torch.zeros_like(torch.ones(2, device=device)),
    "empty": lambda device: torch.empty(0, 3, device=device),
    "rand": lambda device: torch.rand(3, device=device, generator=torch.Generator(device).manual_seed(3)),
    "randn": lambda device: torch.randn(3, device=device, generator=torch.Generator(device).manual_seed(3)),
    "randperm": lambda device: torch.randperm(9, device=device, generator=torch.Generator(device).manual_seed(3)),
    "drawn in place": lambda device: torch.empty(4, device=device).normal_(
        generator=torch.Generator(device).manual_seed(3)
    ),
    "default device": lambda device: _under(torch.device(device), lambda: torch.ones(2)),
}


def _under(device: torch.device, make: Callable[[], Tensor]) -> Tensor:
    with device:
        return make()


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("place", ["pretend", "pretend:0"])
def test_a_factory_makes_device_tensors(device: torch.device, name: str, place: str) -> None:
    made, reference = FACTORIES[name](place), FACTORIES[name]("cpu")
    assert made.device == device
    assert made.dtype == reference.dtype
    assert torch.equal(made.cpu(), reference)


def test_values_come_back(device: torch.device) -> None:
    x = torch.tensor([[1.5, 2.0]], device=device)
    assert x.tolist() == [[1.5, 2.0]]
    assert (x[0, 0].item(), float(x[0, 1]), int(x[0, 1]), bool(x[0, 0] > 1)) == (1.5, 2.0, 2, True)
    assert repr(x) == "tensor([[1.5000, 2.0000]], device='pretend:0')"
    assert x.is_pretend
    assert x.to(device) is x
    assert x.cpu().numpy().sum() == 3.5
    assert torch.Generator(device).device == device
    assert isinstance(torch.Generator(), torch.Generator)
    steps, value = 0, torch.tensor(8.0, device=device)
    while value.item() > 1:
        value, steps = value / 2, steps + 1
    assert steps == 3


def test_views_share_memory(device: torch.device) -> None:
    x = torch.zeros(3, 4, device=device)
    x[1].add_(1)
    x.T[2] = 5.0
    x.view(-1)[-1:].fill_(7)
    x.diagonal().mul_(2)
    x[:, 1:3][2].sub_(1)
    x.as_strided((2,), (1,), 4).neg_()
    x.detach()[0, 3] = 9
    x.unfold(1, 2, 2)[0, 0].zero_()
    assert x.tolist() == [[0, 0, 5, 9], [-1, -2, 5, 1], [0, -1, 9, 7]]
    row = x[1]
    assert row._base is x
    assert row.storage_offset() == 4
    assert row.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert x.cpu().data_ptr() != x.data_ptr()
    del x
    gc.collect()
    assert row.tolist() == [-1, -2, 5, 1]


def test_autograd_follows_writes_into_views(device: torch.device) -> None:
    def loss(x: Tensor) -> Tensor:
        y = x * 2
        y[1, 1:].mul_(x[0, 1:])
        y.T[0].exp_()
        return (y**2).sum()

    there, here = draw(2, 3, device=device, grad=True), draw(2, 3, grad=True)
    assert torch.equal(torch.autograd.grad(loss(there), there)[0].cpu(), torch.autograd.grad(loss(here), here)[0])


def test_a_write_into_what_backward_needs_is_noticed(device: torch.device) -> None:
    x = draw(3, device=device, grad=True)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_syncs_are_counted(device: torch.device) -> None:
    x, y = draw(4, 3, device=device, grad=True), draw(3, device=device)
    with count_syncs() as hot:
        for _ in range(3):
            (gradient,) = torch.autograd.grad(
                torch.where(x > 0, x @ y[:, None], 0.0).pow(2).sum(), x, create_graph=True
            )
            y = (y - 0.1 * gradient.sum(0)).detach()
        torch.where(x[:, 0] > 0, x[:, 0], torch.tensor(1.0))
    mask, values = y > 0, y[y > 0]
    assert hot == 0
    assert hot.uploads == []
    reads: list[Callable[[], Any]] = [
        lambda: y[0].item(),
        lambda: float(y[0]),
        lambda: bool((y > 0).any()),
        lambda: y.tolist(),
        lambda: y.cpu(),
        lambda: torch.empty(3, dtype=torch.float64).copy_(y),
        lambda: y[y > 0],
        lambda: y.nonzero(),
        lambda: torch.equal(y, y),
        lambda: torch.linalg.lu_factor(y.diag()),
        lambda: torch.linalg.eigvalsh(y.diag()),
        lambda: assign(y, mask, values),
        lambda: repr(y),
    ]
    for read in reads:
        with count_syncs() as outer, count_syncs() as inner:
            read()
        assert inner.count == int(outer) >= 1, read
        assert all("at test_harness.py:" in event for event in inner.events)
    with count_syncs() as uploads:
        torch.tensor([1.0], device=device)
        x.detach()[torch.tensor([0])]
        assign(x.detach(), x > 0, 0.0)
    assert uploads == 0
    assert len(uploads.uploads) == 2
