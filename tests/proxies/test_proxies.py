"""Proxies agree with values worked out by hand or by other means, and leave no trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_engine.proxies.grad_norm import grad_norm
from nas_engine.proxies.naswot import naswot
from nas_engine.proxies.scoring import PROXIES
from nas_engine.proxies.synflow import synflow
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import ImageShape

SHAPE = ImageShape(3, 8, 8, 3)
CELLS = NASBench201Space(SHAPE, NASBench201Options(channels=4, cells=1, allow_disconnected=True))
every_proxy = pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
NO_LABELS = torch.zeros(0)


def rectified(weights: list[list[float]]) -> nn.Sequential:
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    layer.weight.data = torch.tensor(weights)
    return nn.Sequential(layer, nn.ReLU())


def test_naswot_of_three_patterns_by_hand() -> None:
    """Codes 11, 10 and 00 of two rectifiers: K = [[2, 1, 0], [1, 2, 1], [0, 1, 2]], whose determinant is 4."""
    inputs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    assert naswot(rectified([[1.0, 0.0], [0.0, 1.0]]), inputs, NO_LABELS) == pytest.approx(math.log(4))


def test_naswot_adds_up_what_hooks_see(network: nn.Module, images: Tensor) -> None:
    """The authors' way: hooks on the modules, and the two products of equation 2, layer by layer."""
    network[3] = nn.Identity()
    expected, twin = np.zeros((6, 6)), copy.deepcopy(network)

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        on = (inputs[0].flatten(1) > 0).double().numpy()
        nonlocal expected
        expected = expected + on @ on.T + (1 - on) @ (1 - on).T

    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(hook)
    twin.train()(images)
    assert naswot(network.eval(), images, NO_LABELS) == pytest.approx(np.linalg.slogdet(expected)[1])


def test_naswot_of_equal_images_is_minus_infinity(images: Tensor) -> None:
    cell = CELLS.build(CELLS.architecture([3] * 6))
    assert naswot(cell, images[[0, 1, 1]], NO_LABELS) == -math.inf


def test_naswot_needs_a_rectifier(images: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    assert math.isnan(naswot(linear, images, NO_LABELS))


def test_naswot_sees_activations_that_are_no_modules(images: Tensor) -> None:
    """MobileNet computes relu6 by a function, in place: a twin with modules instead has the same score."""

    class Functional(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, inputs: Tensor) -> Tensor:
            return functional.relu6(self.layer(inputs.flatten(1)), inplace=True)

    layer = nn.Linear(192, 7)
    by_module = nn.Sequential(nn.Flatten(), layer, nn.ReLU6())
    assert naswot(Functional(layer), images, NO_LABELS) == naswot(by_module, images, NO_LABELS) > 0


def test_synflow_of_two_layers_by_hand() -> None:
    """|w| of the layers are [[1, 2], [3, 4]] and [[5, 6]]: R = 5*3 + 6*7 = 57, which each layer's saliencies sum to."""
    network = nn.Sequential(*rectified([[1.0, -2.0], [-3.0, 4.0]]), nn.Linear(2, 1, bias=False))
    network[2].weight.data = torch.tensor([[-5.0, 6.0]])
    assert synflow(network, torch.zeros(4, 2), NO_LABELS) == pytest.approx(math.log(57 + 57))


def test_synflow_takes_batch_norm_out_and_sees_no_images(network: nn.Module, images: Tensor) -> None:
    """Without BatchNorm in it the network has the same score, whatever BatchNorm has seen and whatever the images."""
    with_statistics = copy.deepcopy(network)
    with_statistics.train()(3 * images + 1)
    network[1] = nn.Identity()
    expected = synflow(network, images, NO_LABELS)
    assert synflow(with_statistics, 7 * images, NO_LABELS) == expected
    assert math.isfinite(expected)


def test_synflow_does_not_overflow() -> None:
    """Saliencies of 1e200: too large for float32."""
    layers = [nn.Linear(10, 10, bias=False) for _ in range(20)]
    for layer in layers:
        layer.weight.data.fill_(1e9)
    expected = math.log(20) + math.log(10.0) * (20 * 9 + 20 + 1)
    assert synflow(nn.Sequential(*layers), torch.zeros(2, 10), NO_LABELS) == pytest.approx(expected)


def test_grad_norm_is_a_sum_of_norms(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """By finite differences in float64, of the convolutions and the linear layer, without their biases."""
    network = network.double()
    network[3] = nn.Identity()

    def loss() -> float:
        return functional.cross_entropy(copy.deepcopy(network).train()(images.double()), labels).item()

    total = 0.0
    for layer in (network[0], network[4], network[8]):
        weights, squares = layer.weight.data.view(-1), 0.0
        for index in range(len(weights)):
            value = weights[index].item()
            weights[index] = value + 1e-6
            above = loss()
            weights[index] = value - 1e-6
            squares += ((above - loss()) / 2e-6) ** 2
            weights[index] = value
        total += math.sqrt(squares)
    assert grad_norm(network, images.double(), labels) == pytest.approx(total, rel=1e-5)


@every_proxy
def test_leaves_no_trace(proxy: Callable[..., float], network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Weights, statistics, gradients, modes, and the global generator are as before, in any mode and without grad."""
    network[0].eval()
    network[4].weight.requires_grad_(False)
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    pixels, generator = images.clone(), torch.random.get_rng_state()
    with torch.no_grad():
        first = proxy(network, images, labels)
        assert not torch.is_grad_enabled()
    assert math.isfinite(first)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert not network[4].weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(images, pixels)
    assert torch.equal(generator, torch.random.get_rng_state())
    assert proxy(network, images, labels) == first


@every_proxy
def test_a_network_that_breaks_has_no_value(
    proxy: Callable[..., float], network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    network[8].weight.data[0, 0] = math.nan
    assert math.isnan(proxy(network, images, labels))


@pytest.mark.parametrize(("name", "expected"), [("naswot", -math.inf), ("synflow", -math.inf)])
def test_a_cell_without_connection_is_the_worst(name: str, expected: float, images: Tensor, labels: Tensor) -> None:
    assert PROXIES[name](CELLS.build(CELLS.architecture([0] * 6)), images, labels) == expected


@every_proxy
def test_better_connected_cells_score_higher(proxy: Callable[..., float], images: Tensor, labels: Tensor) -> None:
    """Convolutions on all edges against a lone skip connection: no proxy gets that wrong."""
    torch.manual_seed(0)
    full, lone = (CELLS.build(CELLS.architecture(genes)) for genes in ([3] * 6, [0, 0, 0, 1, 0, 0]))
    assert proxy(full, images, labels) > proxy(lone, images, labels)


@every_proxy
def test_works_on_other_spaces(proxy: Callable[..., float], images: Tensor, labels: Tensor) -> None:
    options = MobileNetOptions(
        stages=((8, 2, 1), (12, 2, 2)), width_multipliers=(0.5, 1.0), stem_width=8, head_width=20
    )
    space = MobileNetSpace(SHAPE, options)
    values = [proxy(space.build(space.sample(np.random.default_rng(seed))), images, labels) for seed in range(4)]
    assert all(map(math.isfinite, values))
    assert len(set(values)) == 4
