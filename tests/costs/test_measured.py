"""Measured costs: memory against sums done by hand, latency by what it runs and what it leaves behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_engine.costs.measured import (
    LatencyOptions,
    MeasuredLatency,
    measure_latency,
    measured_peak_activation_bytes,
)
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture, ImageShape

SHAPE = ImageShape(1, 8, 8, 10)
IMAGE = 64


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


class CallLog(nn.Module):
    """Records what each forward pass sees."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(IMAGE, 10)
        self.calls: list[tuple[torch.Size, bool, bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((images.shape, self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        return self.classifier(images.flatten(1))


@pytest.mark.parametrize(
    ("function", "values"),
    [
        pytest.param(lambda x: x, IMAGE, id="nothing but the image"),
        pytest.param(lambda x: x + 1, 2 * IMAGE, id="one result"),
        pytest.param(lambda x: (x + 1).relu_(), 2 * IMAGE, id="in-place result shares its storage"),
        pytest.param(lambda x: (x + 1).flatten().view(8, 8).t()[1:], 2 * IMAGE, id="views share their storage"),
        pytest.param(lambda x: x + 1 + 1 + 1, 3 * IMAGE, id="freed intermediate results do not add up"),
        pytest.param(lambda x: torch.stack([x + i for i in range(4)]), 9 * IMAGE, id="list of results, then a copy"),
        pytest.param(lambda x: sum(torch.split(x + 1, 2, dim=2)), 2 * IMAGE + 32, id="several outputs, one storage"),
    ],
)
def test_peak_is_the_sum_of_live_storages(function, values: int) -> None:
    assert measured_peak_activation_bytes(Lambda(function), SHAPE) == 4 * values


def test_peak_leaves_out_parameters_and_buffers() -> None:
    conv, norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
    assert measured_peak_activation_bytes(nn.Sequential(conv, norm, nn.ReLU(inplace=True)), SHAPE) == 4 * 9 * IMAGE
    # The Sequential's caller holds the image; each convolution's result lives until its normalised copy exists.
    weights = Lambda(lambda x: conv.weight.flatten())
    weights.conv = conv
    assert measured_peak_activation_bytes(weights, SHAPE) == 4 * IMAGE


def test_peak_keeps_the_mode_of_every_module() -> None:
    frozen = nn.BatchNorm2d(1).eval()
    model = nn.Sequential(nn.Conv2d(1, 1, 1), frozen).train()
    frozen.eval()
    measured_peak_activation_bytes(model, SHAPE)
    assert [module.training for module in model.modules()] == [True, True, False]


def test_latency_runs_what_it_says() -> None:
    model = CallLog().train()
    threads_before = torch.get_num_threads()
    latency = measure_latency(model, SHAPE, threads=1, batch_size=3, warmup=2, repeats=7)
    assert model.calls == [(torch.Size([3, 1, 8, 8]), False, False, 1)] * 9
    assert (latency.threads, latency.batch_size, latency.repeats) == (1, 3, 7)
    assert 0 < latency.median_ms <= latency.p95_ms
    assert model.training
    assert torch.get_num_threads() == threads_before


def test_latency_restores_threads_and_mode_after_an_error() -> None:
    def fail(images: Tensor) -> Tensor:
        raise RuntimeError("broken network")

    model, threads_before = Lambda(fail).train(), torch.get_num_threads()
    with pytest.raises(RuntimeError, match="broken network"):
        measure_latency(model, SHAPE, threads=threads_before + 1)
    assert torch.get_num_threads() == threads_before
    assert model.training


class CountedBlocks(BlockSpace):
    """Counts the networks it builds."""

    def __init__(self) -> None:
        super().__init__(SHAPE, BlockSpaceOptions(blocks=3, widths=3, merge_skips=True))
        self.built: list[Architecture] = []

    def build(self, architecture: Architecture) -> nn.Module:
        self.built.append(architecture)
        return super().build(architecture)


def test_each_canonical_architecture_is_measured_once() -> None:
    space = CountedBlocks()
    model = MeasuredLatency(space, LatencyOptions(warmup=0, repeats=2))
    first, same, other = (space.architecture(genes) for genes in [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
    costs = model.estimate([first, same, other, first])
    assert model.names == ("latency_ms",)
    assert costs.shape == (4, 1)
    assert (costs > 0).all()
    assert costs[0] == costs[1] == costs[3]
    assert space.built == [space.canonical(first), space.canonical(other)]
    assert (model.estimate([first]) == costs[0]).all()
    assert model.estimate([]).shape == (0, 1)


def test_measuring_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    MeasuredLatency(CountedBlocks(), LatencyOptions(warmup=0, repeats=1)).estimate([Architecture("blocks", (1, 1, 0))])
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_was_measured_before_is_not_measured_again() -> None:
    space = CountedBlocks()
    model = MeasuredLatency(space, LatencyOptions(warmup=0, repeats=1))
    known = Architecture("blocks", (1, 1, 0))
    model.remember({known.key: 12.5})
    assert model.estimate([known]).tolist() == [[12.5]]
    assert space.built == []


def test_networks_run_on_the_device_that_was_asked_for() -> None:
    """The device without storage stands for a GPU: what was built on the CPU and left there would run there."""
    devices: list[str] = []

    class Watched(CountedBlocks):
        def build(self, architecture: Architecture) -> nn.Module:
            network = super().build(architecture)
            network.register_forward_pre_hook(lambda module, inputs: devices.append(inputs[0].device.type))
            return network

    MeasuredLatency(Watched(), LatencyOptions(warmup=1, repeats=2), "meta").estimate(
        [Architecture("blocks", (1, 1, 0))]
    )
    assert devices == ["meta"] * 3
    assert measure_latency(nn.Conv2d(1, 1, 1).to("meta"), SHAPE, repeats=1).device == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_waited_for_before_and_after_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    latency = measure_latency(nn.Conv2d(1, 1, 1).cuda(), SHAPE, warmup=2, repeats=7)
    assert waits == [torch.device("cuda:0")] * 8  # once after the warm-up
    assert latency.device == "cuda:0"
