"""Every layer and a run on a GPU, where there is one, without the pretend device: autograd takes the two for one."""

from __future__ import annotations

import pytest
import torch

from .device.test_layers import CASES
from .rlhf import tiny

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("name", CASES)
def test_a_layer_on_a_gpu_agrees_with_the_cpu(name: str) -> None:
    _, run = CASES[name]
    for here, there in zip(run(torch.device("cpu")), run(torch.device("cuda")), strict=True):
        assert torch.allclose(here, there, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["sobirl", "pbrl"])
def test_a_run_on_a_gpu_ends_and_its_networks_are_there(method: str) -> None:
    trainer = tiny.trainer(method=method, device="cuda")
    assert torch.isfinite(torch.tensor(trainer.learn().true_return))
    networks = (trainer.agent.policy, trainer.reward_model)
    assert {parameter.device.type for network in networks for parameter in network.parameters()} == {"cuda"}
