"""MobileNet and its supernet: a path is exactly the stand-alone network with the same, sliced weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_engine.nn.mobilenet import InvertedResidual, MobileNet
from nas_engine.nn.mobilenet_supernet import MobileNetSupernet
from nas_engine.nn.supernet import recalibrated
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.types import Architecture, ImageShape

SPACE = MobileNetSpace(
    ImageShape(3, 13, 10, 5),
    MobileNetOptions(stages=((8, 2, 1), (12, 3, 2)), width_multipliers=(0.5, 1.0), stem_width=8, head_width=20),
)


def images(count: int, seed: int = 0) -> Tensor:
    shape = SPACE.shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, shape.channels, shape.height, shape.width, generator=generator)


def architectures(count: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    supernet = SPACE.supernet()
    ends = [SPACE.architecture(genes) for genes in (supernet.smallest(), supernet.largest())]
    return [*ends, *(SPACE.sample(rng) for _ in range(count))]


@pytest.fixture
def supernet() -> MobileNetSupernet:
    """Weights and statistics as after training on all kinds of paths: nothing at its initial value."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SPACE.supernet().train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        for seed, architecture in enumerate(architectures(10)):
            net(images(8, seed), architecture.genes)
    return net.eval()


def inherit(network: nn.Module, supernet: MobileNetSupernet, architecture: Architecture) -> None:
    """Copy into a stand-alone network the first channels, and the centres of kernels, of its path."""
    used = [i for i, gene in enumerate(architecture.genes[2:]) if gene < len(SPACE.operations)]
    shared = supernet.state_dict()
    state = {}
    for name, target in network.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers":
            parts[1] = str(used[int(parts[1])])
        source = shared[".".join(parts)]
        for dim, size in enumerate(target.shape):
            start = (source.shape[dim] - size) // 2 if dim >= 2 else 0
            source = source.narrow(dim, start, size)
        state[name] = source
    network.load_state_dict(state)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_path_equals_stand_alone_network(supernet: MobileNetSupernet, training: bool) -> None:
    supernet.train(training)
    for architecture in architectures(8):
        network = SPACE.build(architecture)
        inherit(network, supernet, architecture)
        network.train(training)
        with torch.no_grad():
            torch.testing.assert_close(supernet(images(4), architecture.genes), network(images(4)))


def test_gradients_of_a_path_equal_those_of_the_stand_alone_network(supernet: MobileNetSupernet) -> None:
    architecture = architectures(1)[-1]
    network = SPACE.build(architecture)
    inherit(network, supernet, architecture)
    supernet.train()
    network.train()
    labels = torch.tensor([0, 1, 2, 3])
    for logits in (supernet(images(4), architecture.genes), network(images(4))):
        nn.functional.cross_entropy(logits, labels).backward()
    shared_total = sum(p.grad.abs().sum() for p in supernet.parameters() if p.grad is not None)
    own_total = sum(p.grad.abs().sum() for p in network.parameters() if p.grad is not None)
    torch.testing.assert_close(shared_total, own_total)


def test_recalibration_gives_exactly_the_statistics_of_the_path(supernet: MobileNetSupernet) -> None:
    batches = [images(6, seed) for seed in (100, 101, 102)]
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    for architecture in architectures(4):
        network = SPACE.build(architecture)
        inherit(network, supernet, architecture)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            for batch in batches:
                network.train()(batch)
            with recalibrated(supernet, architecture.genes, batches):
                logits = supernet(images(4), architecture.genes)
                own = SPACE.build(architecture)
                inherit(own, supernet, architecture)
        torch.testing.assert_close(logits, network.eval()(images(4)))
        torch.testing.assert_close(own.state_dict(), network.state_dict())
        for name, value in supernet.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_recalibration_matters(supernet: MobileNetSupernet) -> None:
    """Otherwise the test above could pass with statistics that never changed."""
    genes = architectures(1)[-1].genes
    with torch.no_grad():
        stale = supernet(images(4), genes)
        with recalibrated(supernet, genes, [images(6, 100)]):
            assert not torch.allclose(supernet(images(4), genes), stale, atol=1e-2)


def test_recalibrated_layers_are_all_batch_norms(supernet: MobileNetSupernet) -> None:
    norms = [name for name, module in supernet.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 + 3 * len(supernet.layers)


def test_network_is_rebuilt_from_its_config() -> None:
    for architecture in architectures(3):
        network = SPACE.build(architecture).eval()
        config = json.loads(json.dumps(network.config))
        again = type(network)(**config).eval()
        again.load_state_dict(network.state_dict())
        assert again.config == network.config
        assert torch.equal(again(images(2)), network(images(2)))


def test_images_are_resized_only_where_they_have_another_size() -> None:
    network = MobileNet(3, 5, (13, 10), 8, [(3, 2, 8, 1)], 16).eval()
    small = nn.functional.interpolate(images(2), size=(7, 5), mode="bilinear", align_corners=False)
    resized = nn.functional.interpolate(small, size=(13, 10), mode="bilinear", align_corners=False)
    assert torch.equal(network(small), network(resized))
    assert not torch.equal(network(small), network(images(2)))


@pytest.mark.parametrize(("in_channels", "stride", "shortcut"), [(8, 1, True), (8, 2, False), (4, 1, False)])
def test_shortcut_exists_where_shapes_agree(in_channels: int, stride: int, shortcut: bool) -> None:
    layer = InvertedResidual(in_channels, 8, kernel=5, expansion=3, stride=stride).eval()
    nn.init.zeros_(layer.project_norm.weight)  # what is left is the bias, 0, and the shortcut
    inputs = torch.randn(2, in_channels, 9, 7, generator=torch.Generator().manual_seed(0))
    outputs = layer(inputs)
    assert outputs.shape == (2, 8, -(-9 // stride), -(-7 // stride))
    assert torch.equal(outputs, inputs if shortcut else torch.zeros_like(outputs))


@pytest.mark.slow
def test_exported_program_agrees_for_any_batch_size() -> None:
    network = SPACE.build(architectures(1)[-1]).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (images(2),), dynamic_shapes={"images": {0: batch}})
    torch.testing.assert_close(program.module()(images(5)), network(images(5)))
