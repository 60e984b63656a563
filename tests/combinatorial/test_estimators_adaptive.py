"""The controller of AdaptiveIMLE: the published one, in plain numbers beside it, and its state."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from bigrad.combinatorial import AdaptiveIMLE, Normal, RelativeStep, SumOfGamma, step_sizes
from bigrad.layers import Combinatorial

from .points import D, Points, numbers, seeded, vertices


def points() -> Points:
    return Points(vertices(6, 3))


def passes(layer: Combinatorial, count: int, seed: int = 0) -> list[Tensor]:
    """Gradients of so many backward passes, each with other numbers."""
    found = []
    for place in range(count):
        cost = numbers(5, 6, seed=seed + place).requires_grad_()
        found.append(torch.autograd.grad(layer(cost), cost, 0.3 * numbers(5, 6, seed=100 + seed + place))[0])
    return found


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("target", [0.5, 2.5])
def test_the_controller_counts_each_sample_s_nonzeros(target: float, two_sided: bool) -> None:
    samples, noise = 3, Normal(0.4)
    estimator = AdaptiveIMLE(
        samples=samples, noise=noise, ratio=0.2, ratio_step=0.05, target=target, two_sided=two_sided, generator=seeded()
    )
    layer = Combinatorial(points(), estimator, on_zero_gradient="ignore")
    oracle, generator = points(), seeded()
    ratio, running, moves = 0.2, 1.0, []
    for place in range(12):
        cost, g = numbers(5, 6, seed=place), 0.3 * numbers(5, 6, seed=100 + place)
        perturbed = noise.perturb(cost, noise.draw(cost, samples, generator), -1.0)
        sizes = (ratio * cost.norm(dim=-1) / g.norm(dim=-1)).unsqueeze(-1)
        ahead, behind = (oracle(perturbed + side * sizes * g) for side in (1, -1 if two_sided else 0))
        wanted = ((ahead - behind) / (sizes * (2 if two_sided else 1))).nan_to_num().mean(0)  # no step, no gradient
        free = cost.clone().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(layer(free), free, g)[0], wanted)
        counts = [int((ahead[k, b] != behind[k, b]).sum()) for k in range(samples) for b in range(5)]
        running = 0.9 * running + 0.1 * sum(counts) / len(counts)
        moves.append(running < target)
        ratio = max(0.0, ratio + (0.05 if running < target else -0.05))
        assert float(estimator.ratio) == pytest.approx(ratio, abs=1e-14)
        assert float(estimator.nonzeros) == pytest.approx(running, abs=1e-14)
    assert moves.count(True) not in (0 if target > 1 else -1, 12 if target < 1 else -1)


def test_counting_shares_instead_only_ever_grows() -> None:
    """What a controller that takes the mean over all entries would do: no sample reaches one."""
    layer = Combinatorial(points(), AdaptiveIMLE(samples=3, noise=Normal(0.4), ratio=2.0, ratio_step=0.01))
    passes(layer, 30)
    assert isinstance(layer.estimator, AdaptiveIMLE)
    assert float(layer.estimator.nonzeros) > 1.0
    assert float(layer.estimator.ratio) < 2.0


def test_the_ratio_stays_above_zero_and_rises_from_it() -> None:
    layer = Combinatorial(
        points(), AdaptiveIMLE(noise=None, ratio=0.0, ratio_step=0.5, target=0.2), on_zero_gradient="ignore"
    )
    assert isinstance(layer.estimator, AdaptiveIMLE)
    first, *rest = passes(layer, 40)
    assert not first.any()
    assert all(gradient.isfinite().all() for gradient in rest)
    assert any(gradient.any() for gradient in rest)
    assert float(layer.estimator.ratio) >= 0


def test_the_state_is_saved_and_the_rest_is_the_same() -> None:
    def fresh(seed: int) -> Combinatorial:
        return Combinatorial(points(), AdaptiveIMLE(samples=2, noise=SumOfGamma(k=3), generator=seeded(seed)))

    layer = fresh(0)
    passes(layer, 3)
    assert set(layer.state_dict()) == {"estimator.ratio", "estimator.nonzeros"}
    assert isinstance(layer.estimator, AdaptiveIMLE)
    assert layer.estimator.generator is not None
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = fresh(1)
    loaded.load_state_dict(torch.load(file))
    assert isinstance(loaded.estimator, AdaptiveIMLE)
    assert loaded.estimator.generator is not None
    loaded.estimator.generator.set_state(layer.estimator.generator.get_state())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded]
    wanted = passes(layer, 3, seed=50)
    for other in copies:
        for one, two in zip(wanted, passes(other, 3, seed=50), strict=True):
            assert torch.equal(one, two)
        assert torch.equal(other.state_dict()["estimator.ratio"], layer.state_dict()["estimator.ratio"])


def test_an_empty_batch_moves_nothing() -> None:
    estimator = AdaptiveIMLE(samples=2)
    cost = torch.zeros(0, 6, dtype=D, requires_grad=True)
    Combinatorial(points(), estimator)(cost).sum().backward()
    assert float(estimator.nonzeros) == 1.0
    assert float(estimator.ratio) == 1.0


def test_in_a_model_it_is_a_submodule_without_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 6), Combinatorial(points(), AdaptiveIMLE()))
    assert len(list(model.parameters())) == 2
    assert "estimator" in repr(model)
    assert "ratio=1" in repr(model)
    model.to(torch.float32)(numbers(2, 3).float()).sum().backward()
    assert model[0].weight.grad is not None


def test_a_norm_of_zero_counts_as_one() -> None:
    """Else a cost of zeros would never move, and a gradient of zeros move it without end."""
    cost = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]], dtype=D)
    cotangent = torch.tensor([[0.0, 8.0], [0.0, 0.0], [0.0, 0.0]], dtype=D)
    assert step_sizes(RelativeStep(2.0), cost, cotangent, 1).tolist() == [0.25, 10.0, 2.0]
