"""Depthwise convolutions with a native weight gradient against PyTorch's, in every layout and size, and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops import depthwise_conv
from nas_engine.ops.depthwise_conv import (
    depthwise_conv2d,
    depthwise_levels,
    depthwise_weight_gradient,
    depthwise_weight_gradient_reference,
)
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.types import ImageShape

needs_native = pytest.mark.skipif(not native.available(), reason="needs the native module")


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers elsewhere in memory."""
    if layout == "channels first":
        return tensor.contiguous()
    if layout == "channels last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "some channels of more":
        wider = torch.cat([tensor, tensor], dim=1).contiguous(memory_format=torch.channels_last)
        return wider[:, : tensor.shape[1]]
    return torch.flip(tensor, (2, 3)).transpose(2, 3).contiguous().transpose(2, 3).flip((2, 3))


@needs_native
@pytest.mark.parametrize("level", depthwise_levels())
@pytest.mark.parametrize("seed", range(60))
def test_equals_pytorch(level: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, channels = int(rng.choice([1, 2, 15, 16, 17, 33])), int(rng.choice([1, 5, 8, 15, 16, 17, 40]))
    height, width = (int(side) for side in rng.integers(1, 20, 2))
    kernel, stride = int(rng.choice([1, 3, 5, 7, 9, 15])), int(rng.choice([1, 1, 2, 3, 15]))
    inputs = in_layout(maps(seed, batch, channels, height, width), rng.choice(["channels last", "channels first"]))
    upstream = maps(seed + 1, batch, channels, -(-height // stride), -(-width // stride))
    upstream = in_layout(upstream, rng.choice(["channels last", "some channels of more", "turned"]))
    got = depthwise_weight_gradient(inputs, upstream, kernel, stride, level=level)
    wanted = depthwise_weight_gradient_reference(inputs.double(), upstream.double(), kernel, stride)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


@needs_native
@pytest.mark.parametrize("layout", ["channels first", "channels last", "some channels of more", "turned"])
def test_memory_formats_change_no_bit(layout: str) -> None:
    inputs, upstream = maps(0, 20, 24, 9, 7), maps(1, 20, 24, 5, 4)
    expected = depthwise_weight_gradient(inputs, upstream, 5, 2)
    assert torch.equal(depthwise_weight_gradient(in_layout(inputs, layout), upstream, 5, 2), expected)
    assert torch.equal(depthwise_weight_gradient(inputs, in_layout(upstream, layout), 5, 2), expected)


@needs_native
def test_threads_change_no_bit() -> None:
    inputs, upstream = maps(0, 70, 50, 9, 7), maps(1, 70, 50, 9, 7)
    one, three = (depthwise_weight_gradient(inputs, upstream, 7, threads=threads) for threads in (1, 3))
    assert torch.equal(one, three)


@pytest.mark.parametrize("with_native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2), (7, 1)])
def test_both_gradients_are_those_of_a_convolution(
    with_native: bool, kernel: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_native:
        monkeypatch.setattr(native, "module", lambda: None)
    inputs, weight = maps(0, 6, 20, 8, 9).requires_grad_(), maps(1, 24, 1, 9, 9).requires_grad_()
    border = (9 - kernel) // 2
    part = weight[:20, :, border : border + kernel, border : border + kernel]
    got = depthwise_conv2d(inputs, part, stride)
    wanted = F.conv2d(inputs, part, stride=stride, padding=kernel // 2, groups=20)
    assert torch.equal(got, wanted)
    assert ("_DepthwiseConv2d" in type(got.grad_fn).__name__) == with_native
    upstream = maps(2, *got.shape)
    for ours, theirs in zip(
        torch.autograd.grad(got, (inputs, weight), upstream),
        torch.autograd.grad(wanted, (inputs, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_native
def test_a_supernet_gets_the_gradients_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    space = MobileNetSpace(ImageShape(1, 8, 8, 10))
    images, labels, genes = maps(0, 16, 1, 8, 8), torch.arange(16) % 10, space.sample(np.random.default_rng(1)).genes
    torch.manual_seed(0)
    supernet = space.supernet()

    native_calls = []
    compute = depthwise_conv.depthwise_weight_gradient

    def counted(*arguments: Any) -> Tensor:
        native_calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(depthwise_conv, "depthwise_weight_gradient", counted)

    def gradients() -> dict[str, Tensor]:
        supernet.zero_grad()
        F.cross_entropy(supernet(images, genes), labels).backward()
        return {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}

    ours = gradients()
    assert native_calls
    monkeypatch.setattr(native, "module", lambda: None)
    theirs = gradients()
    assert ours.keys() == theirs.keys()
    assert any("depthwise" in name for name in ours)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-5)


def test_what_is_not_trained_is_an_ordinary_convolution() -> None:
    inputs, weight = maps(0, 2, 8, 5, 5), maps(1, 8, 1, 3, 3)
    expected = F.conv2d(inputs, weight, padding=1, groups=8)
    assert torch.equal(depthwise_conv2d(inputs, weight), expected)
    with torch.no_grad():
        assert torch.equal(depthwise_conv2d(inputs, weight.clone().requires_grad_()), expected)
    doubles = weight.double().requires_grad_()
    depthwise_conv2d(inputs.double(), doubles).sum().backward()
    assert doubles.grad is not None
    assert doubles.grad.dtype == torch.float64


@pytest.mark.parametrize(("height", "width", "stride"), [(17, 17, 1), (4, 4, 2), (3, 5, 1), (3, 3, 16)])
def test_what_native_code_does_not_know_is_left_to_pytorch(height: int, width: int, stride: int) -> None:
    inputs, weight = maps(0, 2, 8, 20, 20), maps(1, 8, 1, height, width).requires_grad_()
    depthwise_conv2d(inputs, weight, stride).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_one_of_both_may_be_frozen() -> None:
    inputs, weight = maps(0, 2, 8, 5, 5).requires_grad_(), maps(1, 8, 1, 3, 3)
    for first, second in ((inputs, weight), (inputs.detach(), weight.clone().requires_grad_())):
        depthwise_conv2d(first, second).sum().backward()  # whose gradient is one number, expanded
        plain = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in (first, second)]
        F.conv2d(*plain, padding=1, groups=8).sum().backward()
        for ours, theirs in zip((first, second), plain, strict=True):
            assert (ours.grad is None) == (theirs.grad is None)
            if ours.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@pytest.fixture
def other_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@needs_native
def test_defaults_of_the_process_do_not_matter(other_defaults: None) -> None:
    inputs = torch.ones(2, 3, 4, 4, dtype=torch.float32, device="cpu")
    gradient = depthwise_weight_gradient(inputs, inputs, 3)
    assert gradient.dtype == torch.float32
    assert gradient.device.type == "cpu"
    assert gradient[0, 0].tolist() == [[18, 24, 18], [24, 32, 24], [18, 24, 18]]


@needs_native
def test_what_is_negated_when_it_is_read_is_negated() -> None:
    inputs, upstream = maps(0, 2, 3, 5, 5), torch.complex(maps(1, 2, 3, 5, 5), maps(2, 2, 3, 5, 5)).conj().imag
    assert upstream.is_neg()
    wanted = depthwise_weight_gradient_reference(inputs, upstream, 3)
    torch.testing.assert_close(depthwise_weight_gradient(inputs, upstream, 3), wanted, rtol=1e-4, atol=1e-4)


@needs_native
def test_nothing_to_sum_up() -> None:
    gradient = depthwise_weight_gradient(torch.zeros(0, 3, 5, 5), torch.zeros(0, 3, 5, 5), 3)
    assert torch.equal(gradient, torch.zeros(3, 1, 3, 3))


@needs_native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(2, 3, 5)}, r"inputs must have shape \[any, any, any, any\], got \[2, 3, 5\]"),
        ({"inputs": torch.zeros(2, 3, 5, 5).double()}, "inputs must have dtype torch.float32, got torch.float64"),
        ({"inputs": np.zeros((2, 3, 5, 5))}, "inputs must be a dense CPU tensor, got ndarray"),
        ({"inputs": torch.zeros(2, 3, 5, 5, device="meta")}, "inputs must be a dense CPU tensor"),
        ({"upstream": torch.zeros(2, 3, 5, 4)}, r"upstream must have shape \[2, 3, 5, 5\], got \[2, 3, 5, 4\]"),
        ({"kernel": 4}, "kernel = 4 must be odd"),
        ({"kernel": 17}, "kernel = 17 is outside 1..15"),
        ({"stride": 0}, "stride = 0 is outside 1..15"),
        ({"stride": 1.0}, "stride must be an integer"),
        ({"threads": 0}, "threads = 0 is outside"),
        ({"level": "best"}, "level must be one of baseline"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "inputs": torch.zeros(2, 3, 5, 5), "upstream": torch.zeros(2, 3, 5, 5), "kernel": 3, "stride": 1
    }  # fmt: skip
    with pytest.raises(NativeError, match=f"depthwise_weight_gradient: {message}"):
        depthwise_weight_gradient(**{**arguments, **change})


def test_without_a_native_module_the_reference_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "module", lambda: None)
    inputs, upstream = maps(0, 2, 3, 5, 5), maps(1, 2, 3, 5, 5)
    wanted = depthwise_weight_gradient_reference(inputs, upstream, 3)
    assert torch.equal(depthwise_weight_gradient(inputs, upstream, 3), wanted)
