"""The kind of code that the library runs gives the same numbers on the pretend device as on the CPU."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .pretend import count_syncs

Program = Callable[..., Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(x: Tensor) -> Tensor:
    """A symmetric positive definite matrix for each row of ``x``."""
    return x[..., :, None] * x[..., None, :] + torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def conjugate_gradients(x: Tensor, b: Tensor) -> Tensor:
    """Each problem of the batch on its own; a finished one is frozen."""
    matrix, solution, residual = spd(x), torch.zeros_like(b), b
    direction, squares = residual, (residual * residual).sum(-1)
    for _ in range(b.shape[-1]):
        active = squares > 1e-20
        product = torch.einsum("bij,bj->bi", matrix, direction)
        curvature = torch.where(active, (direction * product).sum(-1), 1.0)
        step = torch.where(active, squares / curvature, torch.zeros_like(squares))
        solution, residual = solution + step[:, None] * direction, residual - step[:, None] * product
        squares, previous = (residual * residual).sum(-1), squares
        ratio = squares / torch.where(active, previous, torch.ones_like(previous))
        direction = torch.where(active[:, None], residual + ratio[:, None] * direction, direction)
    return solution


def limited_memory_bfgs(x: Tensor, b: Tensor) -> Tensor:
    """The two-loop recursion with masked pairs, on a convex objective, differentiated through."""

    def gradient(y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            value = (torch.einsum("bi,bij,bj->b", y, spd(x), y) / 2 - (b * y).sum(-1)).sum() + torch.logsumexp(
                y, -1
            ).sum()
            return torch.autograd.grad(value, y, create_graph=True, retain_graph=True)[0]

    y = torch.zeros_like(b)
    g, pairs = gradient(y), []
    for _ in range(4):
        q, alphas = g, []
        for s, d, rho, valid in reversed(pairs):
            alphas.append(torch.where(valid, rho * (s * q).sum(-1), 0.0))
            q = q - alphas[-1][:, None] * d
        for (s, d, rho, valid), alpha in zip(pairs, reversed(alphas), strict=True):
            beta = torch.where(valid, rho * (d * q).sum(-1), 0.0)
            q = q + (alpha - beta)[:, None] * s
        s = -0.3 * q
        after = gradient(y + s)
        d, y, g = after - g, y + s, after
        curvature = (s * d).sum(-1)
        valid = curvature > 1e-10
        pairs = [*pairs, (s, d, torch.where(valid, 1 / curvature.clamp_min(1e-10), 0.0), valid)][-3:]
    return y


class Implicit(torch.autograd.Function):
    """Solves ``A(x) y = b`` by Newton's method, differentiating inside; its backward is differentiable."""

    @staticmethod
    def forward(x: Tensor, b: Tensor) -> Tensor:
        y = torch.zeros_like(b)
        with torch.enable_grad():
            for _ in range(2):
                y = y.detach().requires_grad_()
                objective = torch.einsum("bi,bij,bj->", y, spd(x.detach()), y) / 2 - (b.detach() * y).sum()
                (residual,) = torch.autograd.grad(objective, y, create_graph=True)
                factors = torch.linalg.lu_factor_ex(spd(x.detach()))[:2]
                y = y - torch.linalg.lu_solve(*factors, residual[..., None])[..., 0]
        return y.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, b, y = ctx.saved_tensors
        with torch.enable_grad():
            adjoint = torch.linalg.solve_ex(spd(x), cotangent)[0]
            at = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()  # y depends on x, and not on this
            residual = b - torch.einsum("bij,bj->bi", spd(at), y)
            (direct,) = torch.autograd.grad(residual, at, adjoint, create_graph=True)
        return direct, adjoint


def multilayer_perceptron(x: Tensor, b: Tensor) -> Tensor:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).double().to(x.device)
    parameters = {name: p * (1 + b.mean()) for name, p in network.named_parameters()}
    return torch.func.functional_call(network, parameters, (x,))


PROGRAMS: dict[str, Program] = {
    "conjugate gradients": conjugate_gradients,
    "L-BFGS": limited_memory_bfgs,
    "implicit function": Implicit.apply,
    "MLP": multilayer_perceptron,
    "lu": lambda x, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(spd(x)), b[..., None])[..., 0],
    "cholesky": lambda x, b: torch.cholesky_solve(b[..., None], torch.linalg.cholesky(spd(x)))[..., 0],
    "triangular": lambda x, b: torch.linalg.solve_triangular(torch.linalg.cholesky(spd(x)), b[..., None], upper=False),
    "eigvalsh": lambda x, b: torch.linalg.eigvalsh(spd(x) + spd(b)),
    "inverse and determinant": lambda x, b: torch.linalg.inv(spd(x)) * torch.linalg.slogdet(spd(b))[1][:, None, None],
    "softmax": lambda x, b: torch.logsumexp(x * b, -1) + (torch.softmax(x, -1) * torch.log_softmax(b, -1)).sum(-1),
    "indexing": lambda x, b: x[b > 0].cumsum(0).sum() * b.gather(-1, (x.argsort(-1) + 4) % 3) + b[x.argmax(-1)],
    "pieces": lambda x, b: torch.cat([t.flatten() for t in x.split(1, -1)]).view_as(b).roll(1, 0) * b.abs().sqrt(),
    "checkpoint": lambda x, b: checkpoint(lambda x, b: (x @ b.mT).tanh(), x, b, use_reentrant=False),
    "complex": lambda x, b: torch.fft.ifft(torch.fft.fft(x) * torch.complex(x, b).conj()).abs(),
    "vmap": lambda x, b: torch.vmap(lambda x, b: torch.linalg.solve_ex(spd(x), b)[0] * x.norm())(x, b),
    "grad of vmap": lambda x, b: torch.vmap(torch.func.grad(lambda x, b: torch.logsumexp(x * b, -1) ** 2))(x, b),
    "vjp": lambda x, b: torch.func.vjp(lambda x: torch.tanh(x) * b, x)[1](b)[0],
    "jacrev": lambda x, b: torch.func.jacrev(lambda x: (x * b).sum(-1).exp())(x),
    "vmap of vjp": lambda x, b: torch.vmap(torch.func.vjp(lambda x: torch.sin(x) * b, x)[1])(torch.stack([x, b]))[0],
}


def derivatives(program: Program, device: torch.device | str) -> list[Tensor]:
    """The value, the gradient and a second derivative."""
    inputs = [draw(4, 3, seed=seed).to(device).requires_grad_() for seed in (1, 2)]
    value = program(*inputs)
    gradient = torch.autograd.grad((value**2).sum(), inputs, create_graph=True, retain_graph=True)
    second = torch.autograd.grad(sum((g * x.detach()).sum() for g, x in zip(gradient, inputs, strict=True)), inputs)
    return [value, *gradient, *second]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_same_numbers(device: torch.device, name: str) -> None:
    for there, here in zip(derivatives(PROGRAMS[name], device), derivatives(PROGRAMS[name], "cpu"), strict=True):
        assert there.device == device
        torch.testing.assert_close(there.detach().cpu(), here.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["conjugate gradients", "L-BFGS", "implicit function", "vmap"])
def test_a_solver_does_not_wait_for_the_device(device: torch.device, name: str) -> None:
    inputs = [draw(4, 3, seed=seed).to(device).requires_grad_() for seed in (1, 2)]
    with count_syncs() as syncs:
        torch.autograd.grad(PROGRAMS[name](*inputs).sum(), inputs)
    assert syncs == 0
    assert syncs.uploads == []


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, on the CPU too
def test_forward_mode(device: torch.device) -> None:
    x, b = draw(4, 3), draw(4, 3, seed=1)

    def program(x: Tensor) -> Tensor:
        return torch.linalg.solve_ex(spd(x), x.tanh())[0]

    there, here = (torch.func.jvp(program, (x.to(place),), (b.to(place),))[1] for place in (device, "cpu"))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-12, atol=1e-12)
    assert there.device == device


def test_a_module_trains(device: torch.device) -> None:
    def train(place: torch.device | str) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).to(place)
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in network.parameters())
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for seed in range(5):
            optimizer.zero_grad()
            x = draw(8, 3, seed=seed).float().to(place)
            nn.functional.mse_loss(network(x), x[:, :1]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        return network, optimizer

    (there, optimizer), (here, _) = train(device), train("cpu")
    for p, q in zip(there.state_dict().values(), here.state_dict().values(), strict=True):
        assert p.device == device
        torch.testing.assert_close(p.cpu(), q)

    twin = copy.deepcopy(there)
    assert twin[0].weight.device == device
    assert twin[0].weight.data_ptr() != there[0].weight.data_ptr()
    file = io.BytesIO()
    torch.save({"network": there.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    assert torch.load(file)["network"]["0.weight"].device == device
    file.seek(0)
    loaded = torch.load(file, map_location="cpu")
    here.load_state_dict(loaded["network"])
    twin.load_state_dict(loaded["network"])
    assert torch.equal(here[0].weight, twin.cpu()[0].weight)


def test_deepcopy_keeps_views_together(device: torch.device) -> None:
    x = torch.zeros(3, device=device)
    y, row = copy.deepcopy((x, x[1:]))
    row.fill_(1)
    assert (x.tolist(), y.tolist()) == ([0, 0, 0], [0, 1, 1])


def test_an_error_in_a_hook_of_backward_comes_out(device: torch.device) -> None:
    def fail(_: Tensor) -> Tensor:
        raise KeyError("in the hook")

    x = torch.ones(3, device=device, requires_grad=True)
    y = x * 2
    y.register_hook(fail)
    with pytest.raises(KeyError, match="in the hook"):
        y.sum().backward()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, fail):
        y = x.exp().sum()
    with pytest.raises(KeyError, match="in the hook"):
        y.backward()
    assert torch.autograd.grad((x**2).sum(), x)[0].tolist() == [2, 2, 2]
