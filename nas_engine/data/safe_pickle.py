"""A pickle reader that can build dicts, lists, numbers, text, bytes and byte arrays, and cannot run anything else.

Not even numpy's own reconstruction is called: a forged array state could make it read beyond a buffer. Records stand in
for arrays while the pickle is read, and are checked and converted afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from nas_engine.data.raw import ByteArray


class _Dtype:
    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment: of no meaning for single bytes, and no other type is converted


class _Array:
    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    content: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state


class _StandIns:
    # Bound methods of an object without attributes: a pickle can set attributes of plain functions, not of these.
    __slots__ = ()

    def reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def from_buffer(self, content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array

    def encode(self, text: Any, encoding: Any = None) -> bytes:
        # Python 3 stores bytes this way in protocol 2.
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("only latin1 text may stand for bytes")
        return text.encode("latin1")


_STAND_INS = _StandIns()
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _STAND_INS.encode,
    **{(f"{package}.multiarray", "_reconstruct"): _STAND_INS.reconstruct for package in ("numpy.core", "numpy._core")},
    **{(f"{package}.numeric", "_frombuffer"): _STAND_INS.from_buffer for package in ("numpy.core", "numpy._core")},
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a data file has no need of") from None


def load_plain_pickle(content: bytes) -> dict[str, Any]:
    """Read a pickled dict; byte arrays become numpy arrays, keys become str.

    Args:
        content: the pickle, of any protocol, from Python 2 or 3.

    Returns:
        The dict. Text of Python 2 stays bytes.

    Raises:
        pickle.UnpicklingError: it asks for anything but plain data, is no dict, or holds an array of other than bytes.
        Exception: malformed pickles raise almost any type.
    """
    loaded = _RestrictedUnpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__} instead of a dict")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): _converted(value) for key, value in loaded.items()
    }


def _converted(value: Any) -> Any:
    return _to_numpy(value) if isinstance(value, _Array) else value


def _to_numpy(array: _Array) -> ByteArray:
    code = array.dtype.code if isinstance(array.dtype, _Dtype) else None
    shape, content = array.shape, array.content
    if code != "u1" or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"it holds an array of dtype {code!r} instead of bytes ('u1')")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise pickle.UnpicklingError("it holds an array without a valid shape")
    if math.prod(shape) != len(content):
        raise pickle.UnpicklingError(f"it holds an array of shape {list(shape)} with {len(content)} bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if array.fortran else "C")
