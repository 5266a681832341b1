from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine.data.safe_pickle import load_plain_pickle

PLAIN = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [0, 1, 2], b"name": b"batch"}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_in_both_orders(protocol: int, order: str) -> None:
    array = np.asarray(PLAIN[b"data"], order=order)
    loaded = load_plain_pickle(pickle.dumps({"data": array}, protocol=protocol))
    np.testing.assert_array_equal(loaded["data"], array)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">i4", "<i8", "|u1"])
def test_numbers_and_arrays_of_numpy(protocol: int, dtype: str) -> None:
    array = np.arange(6).astype(dtype).reshape(2, 3)
    content = OrderedDict(array=array, inner={("a", 7): array.T}, number=array[1, 1], list=[array[1, 2]])
    content["inner"]["itself"] = content["inner"]
    loaded = load_plain_pickle(pickle.dumps(content, protocol=protocol))
    assert list(loaded) == list(content)
    assert (loaded["number"], loaded["list"]) == (4, [5])
    assert type(loaded["number"]) is (float if "f" in dtype else int)
    for found, expected in [(loaded["array"], array), (loaded["inner"]["a", 7], array.T)]:
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("value", [np.array([None]), np.array(["a"]), np.array(0, "M8[s]"), np.zeros(2, "f8,i4")])
def test_arrays_of_other_than_numbers_are_refused(value: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="instead of numbers"):
        load_plain_pickle(pickle.dumps({"data": value}, protocol=4))


@pytest.mark.parametrize("size", [0, 4, 16])
def test_a_forged_scalar_reads_no_memory(size: int) -> None:
    honest = pickle.dumps({"data": np.float64(1.0)}, protocol=3)
    content = np.float64(1.0).tobytes()
    forged = honest.replace(b"C\x08" + content, b"C" + bytes([size]) + b"\0" * size)
    assert forged != honest
    with pytest.raises(ValueError):
        load_plain_pickle(forged)


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"cnumpy\nload\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x13ndarray.__reduce__\x93.",
        b"\x82\x01.",  # an entry of the extension registry
        b"P0\n.",  # a persistent id
        b"N.",
    ],
)
def test_whatever_is_not_plain_data_is_refused(content: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        load_plain_pickle(content)


def test_a_forged_array_state_reads_no_memory() -> None:
    honest = pickle.dumps({"data": np.zeros(4, np.uint8)}, protocol=2)
    # The shape (4,) is the opcodes BININT1 4, TUPLE1; make it 64.
    forged = honest.replace(b"K\x04\x85", b"K\x40\x85")
    assert forged != honest
    with pytest.raises(pickle.UnpicklingError, match=r"shape \[64\] with 4 bytes"):
        load_plain_pickle(forged)


def test_functions_cannot_be_altered_by_a_pickle() -> None:
    # BUILD with a pair of states sets attributes of what is on the stack.
    alter = b"\x80\x02c_codecs\nencode\n(N}X\x0c\x00\x00\x00__defaults__Nstb."
    with pytest.raises((pickle.UnpicklingError, AttributeError)):
        load_plain_pickle(alter)
    assert load_plain_pickle(pickle.dumps(PLAIN, protocol=2))["name"] == b"batch"


@given(data=st.data(), protocol=st.sampled_from([0, 2, 4, 5]))
@settings(max_examples=150, deadline=None)
def test_damaged_pickles_raise_or_give_plain_data(data, protocol: int) -> None:
    content = bytearray(pickle.dumps(PLAIN, protocol=protocol))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    try:
        loaded = load_plain_pickle(bytes(content))
    except Exception:
        return  # the caller turns every exception into one line
    found = {type(value).__module__ for value in loaded.values()}
    assert found <= {"builtins", "numpy", "nas_engine.data.safe_pickle"}
