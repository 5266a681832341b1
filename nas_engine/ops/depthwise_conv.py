"""Depthwise convolutions whose gradient by the weights is computed natively: PyTorch is slow at it on CPUs."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.grad import conv2d_weight

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.boundary import call_native, require_int, require_tensor

_OP = "depthwise_weight_gradient"
_LARGEST = 15  # of kernels and strides
_MOST_THREADS = 1024
_CPU = torch.device("cpu")


def depthwise_conv2d(inputs: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Convolve each channel by itself, padded by half the kernel: `conv2d` of PyTorch with a group for each channel.

    Outputs and the gradient of the inputs are PyTorch's; that of the weights is native for float32 on a CPU, where
    there is a native module. It can be differentiated once, and not by the transforms of `torch.func`.

    Args:
        inputs: [batch, channels, height, width].
        weight: [channels, 1, kernel, kernel], the kernel odd.
        stride: of both dimensions.

    Returns:
        [batch, channels, ceil(height / stride), ceil(width / stride)].
    """
    if _is_native(inputs, weight, stride):
        return cast(Tensor, _DepthwiseConv2d.apply(inputs, weight, stride))  # type: ignore[no-untyped-call]
    return _convolve(inputs, weight, stride)


def depthwise_weight_gradient(
    inputs: Tensor, upstream: Tensor, kernel: int, stride: int = 1, *, level: str = "", threads: int | None = None
) -> Tensor:
    """Gradient of `depthwise_conv2d` by its weights: for each tap the sum of upstream times the input that it met.

    Args:
        inputs: float32 [batch, channels, height, width] on the CPU, in any memory format; channels last is fastest.
        upstream: float32 [batch, channels, ceil(height / stride), ceil(width / stride)], gradient of the outputs.
        kernel: odd, 1 to 15.
        stride: 1 to 15.
        level: one of `depthwise_levels`; empty: the last. Of no meaning to the reference.
        threads: None: as many as torch uses. The result does not depend on them.

    Returns:
        float32 [channels, 1, kernel, kernel].

    Raises:
        NativeError: an argument is not as above.
    """
    require_int(_OP, "kernel", kernel, 1, _LARGEST)
    if kernel % 2 == 0:
        raise NativeError(f"{_OP}: kernel = {kernel} must be odd")
    require_int(_OP, "stride", stride, 1, _LARGEST)
    threads = torch.get_num_threads() if threads is None else threads
    require_int(_OP, "threads", threads, 1, _MOST_THREADS)
    require_tensor(_OP, "inputs", inputs, torch.float32, (None,) * 4, device=_CPU)
    batch, channels, height, width = inputs.shape
    size = -(-height // stride), -(-width // stride)
    require_tensor(_OP, "upstream", upstream, torch.float32, (batch, channels, *size), device=_CPU)
    module = native.module()
    if module is None:
        return depthwise_weight_gradient_reference(inputs, upstream, kernel, stride)
    if level and level not in depthwise_levels():
        raise NativeError(f"{_OP}: level must be one of {', '.join(depthwise_levels())}, got {level}")
    gradient = torch.zeros(channels, 1, kernel, kernel, dtype=torch.float32, device=_CPU)
    inputs, upstream = inputs.resolve_neg(), upstream.resolve_neg()
    if inputs.numel():
        sizes = (batch, channels, height, width, kernel, stride)
        places = (inputs.data_ptr(), inputs.stride(), upstream.data_ptr(), upstream.stride(), gradient.data_ptr())
        shapes = {"inputs": inputs.shape, "upstream": upstream.shape}
        call_native(_OP, module.depthwise_weight_gradient, sizes, *places, threads, level, shapes=shapes)
    return gradient


def depthwise_weight_gradient_reference(inputs: Tensor, upstream: Tensor, kernel: int, stride: int = 1) -> Tensor:
    """The same by PyTorch."""
    groups, padding = inputs.shape[1], kernel // 2
    shape = (groups, 1, kernel, kernel)
    gradient = conv2d_weight(inputs, shape, upstream, stride, padding, groups=groups)  # type: ignore[no-untyped-call]
    return cast(Tensor, gradient)


def depthwise_levels() -> tuple[str, ...]:
    """Instruction sets of the native code on this processor, the fastest one last; empty without a native module."""
    module = native.module()
    return () if module is None else tuple(module.depthwise_levels())


def _is_native(inputs: Tensor, weight: Tensor, stride: int) -> bool:
    if not (torch.is_grad_enabled() and weight.requires_grad) or torch.is_autocast_enabled("cpu"):
        return False
    kernel = weight.shape[-1]
    if weight.shape[-2] != kernel or kernel % 2 == 0 or max(kernel, stride) > _LARGEST:
        return False
    plain = all(
        type(tensor) in (Tensor, torch.nn.Parameter) and tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        for tensor in (inputs, weight)
    )
    return plain and not torch.compiler.is_compiling() and native.module() is not None


def _convolve(inputs: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(inputs, weight, stride=stride, padding=weight.shape[-1] // 2, groups=len(weight))


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.stride = stride  # type: ignore[attr-defined]
        return _convolve(inputs, weight, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, weight = ctx.saved_tensors
        of_inputs = of_weight = None
        kernel, stride = weight.shape[-1], ctx.stride
        if ctx.needs_input_grad[0]:
            of_inputs = torch.ops.aten.convolution_backward(
                upstream, inputs, weight, None, [stride] * 2, [kernel // 2] * 2, [1, 1], False, [0, 0], len(weight),
                [True, False, False],
            )[0]  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = depthwise_weight_gradient(inputs, upstream, kernel, stride)
        return of_inputs, of_weight, None
