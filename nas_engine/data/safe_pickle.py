"""A pickle reader that can build dicts, lists, numbers, text, bytes and arrays of numbers, and run nothing else.

Not even numpy's own reconstruction is called: a forged array state could make it read beyond a buffer. Records stand in
for arrays while the pickle is read, and are checked and converted afterwards. Numpy's scalars become plain numbers, and
ordered dicts plain ones, which keep their order too.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from nas_engine.data.raw import AnyArray

_NUMBERS = {f"{kind}{size}" for kind, sizes in (("u", "1248"), ("i", "1248"), ("f", "248")) for size in sizes}


class _Dtype:
    order: Any = "="

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        self.order = state[1].decode("ascii", "replace") if isinstance(state[1], bytes) else state[1]


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

    def scalar(self, dtype: Any, content: Any) -> int | float:
        number: int | float
        [number] = _numbers(dtype, content).tolist()
        return number

    def ordered(self, items: Any = ()) -> dict[Any, Any]:
        return dict(items)

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
    ("collections", "OrderedDict"): _STAND_INS.ordered,
    **{(f"{package}.multiarray", "scalar"): _STAND_INS.scalar for package in ("numpy.core", "numpy._core")},
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
    """Read a pickled dict; arrays of numbers become numpy arrays, also in dicts within it, its own keys become str.

    Args:
        content: the pickle, of any protocol, from Python 2 or 3.

    Returns:
        The dict. Text of Python 2 stays bytes.

    Raises:
        pickle.UnpicklingError: it asks for anything but plain data, is no dict, or an array holds other than numbers.
        Exception: malformed pickles raise almost any type.
    """
    loaded = _RestrictedUnpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__} instead of a dict")
    _convert(loaded)
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in loaded.items()}


def _convert(loaded: dict[Any, Any]) -> None:
    """Put arrays in the place of the records that stand in for them, in all dicts; a dict may hold itself."""
    rest, seen = [loaded], {id(loaded)}
    while rest:
        current = rest.pop()
        for key, value in list(current.items()):
            if isinstance(value, _Array):
                current[key] = _to_numpy(value)
            elif isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                rest.append(value)


def _to_numpy(array: _Array) -> AnyArray:
    numbers, shape = _numbers(array.dtype, array.content), array.shape
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise pickle.UnpicklingError("it holds an array without a valid shape")
    if math.prod(shape) != len(numbers):
        raise pickle.UnpicklingError(f"it holds an array of shape {list(shape)} with {numbers.nbytes} bytes")
    return numbers.reshape(shape, order="F" if array.fortran else "C")


def _numbers(dtype: Any, content: Any) -> AnyArray:
    code = dtype.code if isinstance(dtype, _Dtype) else None
    if not isinstance(code, str) or code not in _NUMBERS or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"it holds an array of dtype {code!r} instead of numbers, such as 'u1' or 'f8'")
    swapped = dtype.order == ">"
    return np.frombuffer(content, dtype=np.dtype(code).newbyteorder(">" if swapped else "<"))
