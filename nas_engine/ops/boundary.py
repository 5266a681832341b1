"""Checks that every array is what native code expects, so that no input can crash the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas_engine.errors import NativeError

if TYPE_CHECKING:
    import torch


def require_array(
    op: str, name: str, value: object, dtype: npt.DTypeLike, shape: Sequence[int | None], *, writable: bool = False
) -> None:
    """Check one array argument of a native op.

    Args:
        op: name of the op, for the message.
        name: name of the argument, for the message.
        value: what the caller passed.
        dtype: the only dtype allowed.
        shape: the size of each dimension; None allows any size.
        writable: whether the op writes into the array.

    Raises:
        NativeError: `value` is no C-contiguous, aligned, native-endian array of that dtype and shape.
    """
    if not isinstance(value, np.ndarray):
        raise NativeError(f"{op}: {name} must be a numpy array, got {type(value).__name__}; use numpy.asarray")
    if value.dtype != np.dtype(dtype):
        raise NativeError(f"{op}: {name} must have dtype {np.dtype(dtype)}, got {value.dtype}; use {name}.astype")
    _require_shape(op, name, value.shape, shape)
    if not (value.flags.c_contiguous and value.flags.aligned):
        raise NativeError(f"{op}: {name} must be contiguous; use numpy.ascontiguousarray({name})")
    if writable and not value.flags.writeable:
        raise NativeError(f"{op}: {name} must be writable, got a read-only array; pass a copy")


def require_cuda_tensor(op: str, name: str, value: object, dtype: torch.dtype, shape: Sequence[int | None]) -> None:
    """Check one tensor argument of a CUDA op.

    Raises:
        NativeError: `value` is no contiguous CUDA tensor of that dtype and shape.
    """
    import torch  # the numpy ops work, and load fast, without it

    if not isinstance(value, torch.Tensor) or not value.is_cuda:
        found = f"a tensor on {value.device}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise NativeError(f"{op}: {name} must be a CUDA tensor, got {found}; use {name}.cuda()")
    if value.dtype != dtype:
        raise NativeError(f"{op}: {name} must have dtype {dtype}, got {value.dtype}; use {name}.to")
    _require_shape(op, name, value.shape, shape)
    _require_memory(op, name, value)
    if not value.is_contiguous():
        raise NativeError(f"{op}: {name} must be contiguous; use {name}.contiguous()")


def require_tensor(
    op: str,
    name: str,
    value: object,
    dtype: torch.dtype,
    shape: Sequence[int | None],
    *,
    device: torch.device,
    contiguous: bool = False,
) -> None:
    """Check one tensor argument of an op that runs on `device`.

    Raises:
        NativeError: `value` is no dense tensor of that device, dtype and shape, is not contiguous where it must be,
            or has no memory of its own.
    """
    import torch  # the numpy ops work, and load fast, without it

    if _is_plain(value, dtype, shape, device):
        return
    if not isinstance(value, torch.Tensor) or value.device != device or value.layout != torch.strided:
        found = (
            f"a {value.layout} tensor on {value.device}" if isinstance(value, torch.Tensor) else type(value).__name__
        )
        kind = "CPU" if device.type == "cpu" else str(device)
        raise NativeError(
            f"{op}: {name} must be a dense {kind} tensor, got {found}; use torch.as_tensor or {name}.to('{device}')"
        )
    if value.dtype != dtype:
        raise NativeError(f"{op}: {name} must have dtype {dtype}, got {value.dtype}; use {name}.to")
    _require_shape(op, name, value.shape, shape)
    _require_memory(op, name, value)
    if contiguous and not value.is_contiguous():
        raise NativeError(f"{op}: {name} must be contiguous; use {name}.contiguous()")


def _is_plain(value: object, dtype: torch.dtype, shape: Sequence[int | None], device: torch.device) -> bool:
    """Whether `value` is what is nearly always passed: dense, contiguous, right in everything; a few microseconds."""
    import torch

    if not isinstance(value, torch.Tensor) or type(value) not in (torch.Tensor, torch.nn.Parameter):
        return False  # a subclass may have no memory
    if value.dtype != dtype or value.device != device or tuple(value.shape) != shape or not value.is_contiguous():
        return False
    needed = (value.storage_offset() + value.numel()) * value.element_size()
    try:
        return value.untyped_storage().nbytes() >= needed and value.data_ptr() != 0
    except RuntimeError:  # a tensor of a tracer has no storage
        return False


def _require_memory(op: str, name: str, value: torch.Tensor) -> None:
    """Tensors of tracers and of `torch.func` have none; others may have lost it (``untyped_storage().resize_(0)``)."""
    if not value.numel():
        return
    from torch._subclasses.fake_tensor import FakeTensor  # asked for its address, it answers 0 and warns

    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    try:
        needed = (value.storage_offset() + last + 1) * value.element_size()
        holds_data = not isinstance(value, FakeTensor) and value.untyped_storage().nbytes() >= needed
        holds_data = holds_data and value.data_ptr() != 0
    except RuntimeError:  # "Cannot access data pointer of Tensor that doesn't have storage"
        holds_data = False
    if not holds_data:
        raise NativeError(f"{op}: {name} has no memory behind its shape {list(value.shape)}; pass a tensor with data")


def require_int(op: str, name: str, value: object, low: int, high: int) -> None:
    """Check a number.

    Raises:
        NativeError: `value` is no integer in low..high.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise NativeError(f"{op}: {name} must be an integer in {low}..{high}, got {value!r}")
    if not low <= value <= high:
        raise NativeError(f"{op}: {name} = {value} is outside {low}..{high}")


def require_member(op: str, name: str, value: object, enumeration: type[Enum]) -> None:
    """Check a choice; its number is not enough, so that 1 cannot mean one thing here and another there.

    Raises:
        NativeError: `value` is no member of `enumeration`.
    """
    if not isinstance(value, enumeration):
        names = ", ".join(f"{enumeration.__name__}.{member.name}" for member in enumeration)
        raise NativeError(f"{op}: {name} must be one of {names}, got {value!r}")


def _require_shape(op: str, name: str, got: Sequence[int], wanted: Sequence[int | None]) -> None:
    if len(got) != len(wanted) or any(size not in (None, found) for size, found in zip(wanted, got, strict=True)):
        text = ", ".join("any" if size is None else str(size) for size in wanted)
        raise NativeError(f"{op}: {name} must have shape [{text}], got {list(got)}")


def require_range(op: str, name: str, value: npt.NDArray[np.integer], upper: npt.ArrayLike) -> None:
    """Check that 0 <= value < upper, broadcast as numpy does.

    Raises:
        NativeError: an element is outside; the message names the first one and its position.
    """
    outside = np.argwhere((value < 0) | (value >= np.asarray(upper)))
    if len(outside):
        position = tuple(int(index) for index in outside[0])
        limit = int(np.broadcast_to(upper, value.shape)[position])
        where = ", ".join(map(str, position))
        raise NativeError(f"{op}: {name}[{where}] = {value[position]} is outside 0..{limit - 1}")


def call_native(
    op: str, function: Callable[..., Any], *arguments: object, shapes: Mapping[str, Sequence[int]] | None = None
) -> Any:
    """Call a function of `_C`.

    Raises:
        NativeError: C++ threw; the message names the op and `shapes`.
    """
    try:
        return function(*arguments)
    except (RuntimeError, MemoryError, ValueError) as error:
        text = ", ".join(f"{name} {list(shape)}" for name, shape in (shapes or {}).items())
        raise NativeError(f"{op} failed in native code with {text}: {error or type(error).__name__}") from error
