"""What `supernet_eval` and its reference refuse: each argument with all that it may not be, named in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.evaluators.path_programs import path_programs
from nas_engine.evaluators.path_scoring import PathScorer
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.ops.supernet_eval import Statistics, supernet_eval, supernet_eval_reference
from nas_engine.ops.supernet_program import SupernetProgram
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.types import ImageShape

pytestmark = pytest.mark.skipif(not native.available(), reason="needs the native module")
EXTREMES = [-(2**63), -(2**31), -2, -1, 5, 6, 255, 2**31, 2**63 - 1]


def small_program() -> SupernetProgram:
    torch.manual_seed(0)
    programs = path_programs(NASBench201Supernet(4, 1, 3, 10))
    assert programs is not None
    return programs.program((), 6, 6)


PROGRAM = small_program()
RECALIBRATED = {"statistics": Statistics.RECALIBRATED}


def arguments() -> dict[str, Any]:
    return {
        "program": PROGRAM,
        "genes": np.zeros((2, 6), dtype=np.int64),
        "images": torch.zeros(4, 3, 6, 6),
        "labels": torch.zeros(4, dtype=torch.int64),
    }


def without_memory(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(*shape, dtype=dtype)


def shrunk(tensor: torch.Tensor, size: int) -> torch.Tensor:
    tensor.untyped_storage().resize_(size)
    return tensor


def images_of(batch: Any) -> dict[str, Any]:
    return {**RECALIBRATED, "calibration": [batch]}


@pytest.mark.parametrize("function", [supernet_eval, supernet_eval_reference])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program": None}, "program must be a SupernetProgram, got NoneType"),
        ({"genes": [[0] * 6]}, "genes must be a numpy array"),
        ({"genes": torch.zeros(2, 6, dtype=torch.int64)}, "genes must be a numpy array, got Tensor"),
        ({"genes": np.zeros((2, 6), dtype=np.int32)}, "genes must have dtype int64"),
        ({"genes": np.zeros((2, 6), dtype=">i8")}, "genes must have dtype int64"),
        ({"genes": np.zeros((2, 5), dtype=np.int64)}, "genes must have shape"),
        ({"genes": np.zeros(6, dtype=np.int64)}, "genes must have shape"),
        ({"genes": np.zeros((2, 12), dtype=np.int64)[:, ::2]}, "genes must be contiguous"),
        ({"genes": np.full((2, 6), 5)}, "genes.0, 0. = 5 is outside 0..4"),
        ({"images": None}, "images must be a dense CPU tensor, got NoneType"),
        ({"images": np.zeros((4, 3, 6, 6), dtype=np.float32)}, "images must be a dense CPU tensor"),
        ({"images": torch.zeros(4, 3, 6, 6, dtype=torch.float64)}, "images must have dtype"),
        ({"images": torch.zeros(4, 3, 6, 7)}, "images must have shape"),
        ({"images": torch.zeros(3, 6, 6)}, "images must have shape"),
        ({"images": torch.zeros(4, 3, 6, 6, device="meta")}, "images must be a dense CPU tensor"),
        ({"images": torch.zeros(4, 3, 6, 6).to_sparse()}, "images must be a dense CPU tensor"),
        ({"images": without_memory(4, 3, 6, 6)}, "images has no memory behind its shape"),
        ({"images": shrunk(torch.zeros(4, 3, 6, 6), 0)}, "images has no memory behind its shape"),
        ({"images": shrunk(torch.zeros(4, 3, 6, 6), 16)}, "images has no memory behind its shape"),
        ({"labels": None}, "labels must be a dense CPU tensor"),
        ({"labels": torch.zeros(4)}, "labels must have dtype"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels must have shape"),
        ({"labels": torch.zeros(4, dtype=torch.int64, device="meta")}, "labels must be a dense CPU tensor"),
        ({"labels": without_memory(4, dtype=torch.int64)}, "labels has no memory behind its shape"),
        ({"labels": torch.full((4,), 10)}, "labels.0. = 10 is outside 0..9"),
        ({"labels": torch.full((4,), -1)}, "labels.0. = -1"),
        ({"statistics": 2}, "statistics must be one of Statistics.RUNNING"),
        ({"statistics": 7}, "statistics must be one of Statistics.RUNNING"),
        ({"statistics": None}, "statistics must be one of Statistics.RUNNING"),
        (RECALIBRATED, "calibration has 0 batches"),
        ({"calibration": [torch.zeros(4, 3, 6, 6)]}, "calibration has 1 batches"),
        ({"calibration": None}, "calibration must be a list or tuple of tensors, got NoneType"),
        ({**RECALIBRATED, "calibration": torch.zeros(1, 4, 3, 6, 6)}, "calibration must be a list or tuple"),
        (images_of(torch.zeros(4, 1, 6, 6)), "calibration.0. must have shape"),
        (images_of(torch.zeros(0, 3, 6, 6)), "calibration.0. is empty"),
        (images_of(torch.zeros(4, 3, 6, 6, dtype=torch.bfloat16)), "calibration.0. must have dtype"),
        (images_of(torch.zeros(4, 3, 6, 6, device="meta")), "calibration.0. must be a dense CPU tensor"),
        (images_of(without_memory(4, 3, 6, 6)), "calibration.0. has no memory behind its shape"),
        (images_of("images"), "calibration.0. must be a dense CPU tensor, got str"),
    ],
)
def test_bad_arguments_are_named(function: Callable[..., Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(NativeError, match=f"^supernet_eval: {message}"):
        function(**{**arguments(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "mmx"}, "level mmx is not available"),
        ({"level": None}, "level must be one of"),
        ({"threads": 0}, "threads = 0 is outside 1..1024"),
        ({"threads": 2**40}, "threads = 1099511627776 is outside 1..1024"),
        ({"threads": 1.5}, "threads must be an integer in 1..1024, got 1.5"),
        ({"threads": "2"}, "threads must be an integer"),
    ],
)
def test_bad_arguments_of_native_code_alone_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NativeError, match=message):
        supernet_eval(**{**arguments(), **change})


@pytest.mark.parametrize("function", [supernet_eval, supernet_eval_reference])
@settings(deadline=None, max_examples=60)
@given(value=st.one_of(st.sampled_from(EXTREMES), st.integers(-(2**63), 2**63 - 1)), data=st.data())
def test_any_gene_and_label_is_scored_or_named(function: Callable[..., Any], value: int, data: st.DataObject) -> None:
    given_arguments = arguments()
    name = data.draw(st.sampled_from(["genes", "labels"]))
    array, limit = given_arguments[name], {"genes": 5, "labels": 10}[name]
    position = tuple(data.draw(st.integers(0, size - 1)) for size in array.shape)
    array[position] = value
    if 0 <= value < limit:
        assert function(**given_arguments).loss.isfinite().all()
        return
    where = re.escape(f"{name}[{', '.join(map(str, position))}] = {value} is outside 0..{limit - 1}")
    with pytest.raises(NativeError, match=f"^supernet_eval: {where}$"):
        function(**given_arguments)


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize(
    ("space", "genes", "message"),
    [
        ("cells", (0, 0, 0, 0, 0, 5), "genes.1, 5. = 5 is outside 0..4"),
        ("cells", (0, 0, -1, 0, 0, 0), "genes.1, 2. = -1 is outside 0..4"),
        ("cells", (0, 0, 0), "genes must be 6 integers for each path"),
        ("cells", (0, 0, 0, 0, 0, 0.5), "genes must be 6 integers for each path"),
        ("cells", (0, 0, 0, 0, 0, 2**70), "genes.1, 5. = 1180591620717411303424 is outside 0..4"),
        ("mobilenet", "width", "genes.1, 0. = -1 is outside 0.."),
        ("mobilenet", "skip", "genes.1, 2. = 6 is outside 0..5"),
    ],
)
def test_a_scorer_of_paths_names_genes_out_of_range(
    monkeypatch: pytest.MonkeyPatch, is_native: bool, space: str, genes: Any, message: str
) -> None:
    if not is_native:
        monkeypatch.setattr(native, "module", lambda: None)
    shape = ImageShape(3, 8, 8, 10)
    if space == "cells":
        supernet, good = NASBench201Space(shape).supernet(), (0,) * 6
    else:
        supernet = MobileNetSpace(shape).supernet()
        good = supernet.smallest()
        first = supernet.skippable.index(False)  # a layer that has to be there
        skipped = {2 + first: len(supernet.operations)} if genes == "skip" else {0: -1}
        genes = tuple(skipped.get(index, gene) for index, gene in enumerate(good))
    scorer = PathScorer(supernet, torch.device("cpu"))
    assert bool(scorer.fallback) != is_native
    with pytest.raises(NativeError, match=f"^supernet_eval: {message}"):
        scorer([good, genes], torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), ())
