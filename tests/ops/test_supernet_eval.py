"""The native op against its PyTorch reference: built-in networks, random programs, every instruction set, bad input."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.evaluators.path_programs import path_programs
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.ops.supernet_eval import (
    Statistics,
    bfloat16_levels,
    describe,
    levels,
    supernet_eval,
    supernet_eval_reference,
)
from nas_engine.ops.supernet_program import Head, Node, ProgramTables, SupernetProgram, Term, TermKind
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.types import ImageShape

pytestmark = pytest.mark.skipif(not native.available(), reason="needs the native module")
LEVELS = levels()


def with_random_norms(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and affine parameters as after some training, so that nothing cancels."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 2.0),
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return network


def cell_program(channels: int, cells: int, height: int, width: int, image_channels: int = 3) -> SupernetProgram:
    torch.manual_seed(0)
    network = with_random_norms(NASBench201Supernet(channels, cells, image_channels, 10))
    return path_programs(network).program((), height, width)


def images_and_labels(program: SupernetProgram, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    image, generator = program.nodes[0], torch.Generator().manual_seed(seed)
    images = torch.randn(count, image.channels, image.height, image.width, generator=generator)
    return images, torch.randint(len(program.head.linear.weight), (count,), generator=generator)


def random_genes(count: int, decisions: int = 6, choices: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, choices, (count, decisions))


def assert_equal_scores(got, wanted):
    """Logits within 1e-4 of the largest logit; counts equal where no two logits are that close."""
    scale = wanted.logits.abs().amax(dim=(1, 2), keepdim=True)
    assert torch.all((got.logits - wanted.logits).abs() <= 1e-4 * scale)
    torch.testing.assert_close(got.loss, wanted.loss, rtol=1e-4, atol=1e-4)
    best = wanted.logits.topk(2, dim=2).values
    ties = ((best[..., 0] - best[..., 1]) <= 2e-4 * scale[..., 0]).sum(1)
    assert torch.all((got.correct - wanted.correct).abs() <= ties)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("statistics", list(Statistics))
@pytest.mark.parametrize(
    ("channels", "cells", "height", "width", "count"),
    [(16, 1, 8, 8, 13), (6, 1, 9, 7, 3), (4, 2, 6, 10, 1), (8, 1, 8, 8, 25), (20, 1, 5, 4, 2), (33, 1, 16, 3, 2)],
)
def test_equals_the_reference(level, statistics, channels, cells, height, width, count):
    program = cell_program(channels, cells, height, width)
    images, labels = images_and_labels(program, count)
    calibration = [images_and_labels(program, size, size)[0] for size in (7, 7)]
    batches = calibration if statistics is Statistics.RECALIBRATED else ()
    genes = random_genes(12)
    if statistics is Statistics.BATCH and count == 1:
        pytest.skip("statistics of single values are an error, tested elsewhere")
    got = supernet_eval(program, genes, images, labels, statistics, batches, want_logits=True, level=level)
    assert_equal_scores(got, supernet_eval_reference(program, genes, images, labels, statistics, batches))


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_all_architectures_of_nasbench201(level):
    """All at the widest level; at the others an orthogonal array: each combination of any four edges is there."""
    program = cell_program(4, 1, 6, 5)
    images, labels = images_and_labels(program, 3)
    genes = np.array(list(itertools.product(range(5), repeat=6)))
    checks = genes @ [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4], [0, 1]]  # of an extended Reed-Solomon code over GF(5)
    array = np.ascontiguousarray(genes[(checks % 5 == 0).all(axis=1)])
    assert len(array) == 5**4
    chosen = genes if level == LEVELS[-1] else array
    got = supernet_eval(program, chosen, images, labels, want_logits=True, level=level)
    assert_equal_scores(got, supernet_eval_reference(program, chosen, images, labels))


class RandomProgram:
    """Draws programs with every kind of term, stride, kernel, choice and activation."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        torch.manual_seed(seed)

    def draw(self) -> SupernetProgram:
        rng = self._rng
        size = int(rng.integers(1, 12)), int(rng.integers(1, 12))
        nodes = [Node(int(rng.integers(1, 5)), *size)]
        for _ in range(int(rng.integers(1, 8))):
            nodes.append(self._node(nodes))
        if nodes[-1].optional:
            nodes[-1] = dataclasses.replace(nodes[-1], optional=False)
        norm = self._norm(nodes[-1].channels) if rng.random() < 0.5 else None
        linear = nn.Linear(nodes[-1].channels + int(rng.integers(0, 3)), int(rng.integers(2, 8)))
        return SupernetProgram(tuple(nodes), Head(len(nodes) - 1, linear, norm), (2, 2, 2))

    def _node(self, nodes: list[Node]) -> Node:
        rng = self._rng
        first = int(rng.integers(len(nodes)))
        stride = int(rng.choice([1, 1, 2, 3]))
        size = -(-nodes[first].height // stride), -(-nodes[first].width // stride)
        keeps = rng.random() < 0.5
        channels = nodes[first].channels if keeps else int(rng.choice([1, 3, 8, 12, 17, 24, 40]))
        same_size = [i for i, node in enumerate(nodes) if (node.height, node.width) == size]
        sources = [(first, stride)] + [(int(rng.choice(same_size)), 1) for _ in range(2) if same_size]
        terms = [self._term(nodes, source, step, channels) for source, step in sources]
        optional = bool(rng.random() < 0.5)
        alike = [i for i, node in enumerate(nodes) if (node.channels, node.height, node.width) == (channels, *size)]
        zero_of = int(rng.choice(alike)) if alike and not optional else None
        return Node(channels, *size, tuple(terms), bool(rng.random() < 0.3), optional, zero_of)

    def _term(self, nodes: list[Node], source: int, stride: int, channels: int) -> Term:
        rng = self._rng
        before = nodes[source].channels
        kinds = [TermKind.CONVOLUTION]
        if before == channels:
            kinds += [TermKind.DEPTHWISE, TermKind.AVERAGE_POOL] + [TermKind.IDENTITY] * (stride == 1)
        kind = TermKind(int(rng.choice(kinds)))
        choice = (int(rng.integers(3)), int(rng.integers(2))) if rng.random() < 0.6 else None
        rectified = bool(rng.random() < 0.5)
        if kind is TermKind.IDENTITY:
            return Term(source, kind, 1, 1, rectified, choice=choice)
        if kind is TermKind.AVERAGE_POOL:
            return Term(source, kind, int(rng.integers(1, 5)), stride, rectified, choice=choice)
        kernel = int(rng.choice([1, 3, 5, 7]))
        largest = kernel + 2 * int(rng.integers(2))
        depthwise = kind is TermKind.DEPTHWISE
        outputs, inputs = channels + int(rng.integers(3)), before + int(rng.integers(3))
        if depthwise:
            outputs, inputs = (max(outputs, before),) * 2
        groups = inputs if depthwise else 1
        convolution = nn.Conv2d(inputs, outputs, largest, groups=groups, bias=False)
        if rng.random() < 0.5:
            convolution = convolution.to(memory_format=torch.channels_last)
        norm = self._norm(channels) if rng.random() < 0.7 else None
        return Term(source, kind, kernel, stride, rectified, convolution, norm, choice)

    def _norm(self, channels: int) -> nn.BatchNorm2d:
        return with_random_norms(nn.BatchNorm2d(channels + int(self._rng.integers(2))), int(self._rng.integers(99)))


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_equal_the_reference(seed):
    program = RandomProgram(seed).draw()
    images, labels = images_and_labels(program, 1 + seed % 14)
    genes = random_genes(4, 3, 2)
    calibration = [images_and_labels(program, 8, 1)[0]]
    for level in LEVELS:
        for statistics in (Statistics.RUNNING, Statistics.RECALIBRATED):
            batches = calibration if statistics is Statistics.RECALIBRATED else ()
            got = supernet_eval(program, genes, images, labels, statistics, batches, want_logits=True, level=level)
            wanted = supernet_eval_reference(program, genes, images, labels, statistics, batches)
            assert_equal_scores(got, wanted)


@pytest.mark.parametrize("statistics", list(Statistics))
def test_threads_change_nothing(statistics):
    program = cell_program(8, 1, 10, 10)
    images, labels = images_and_labels(program, 30)
    batches = [images] if statistics is Statistics.RECALIBRATED else ()
    one, three = (
        supernet_eval(program, random_genes(6), images, labels, statistics, batches, want_logits=True, threads=threads)
        for threads in (1, 3)
    )
    assert torch.equal(one.logits, three.logits)
    assert torch.equal(one.loss, three.loss)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width", range(1, 10))
def test_an_image_scores_alike_whatever_is_scored_with_it(level, width):
    program = cell_program(9, 1, 6, width)
    images, labels = images_and_labels(program, 15)
    all_at_once = supernet_eval(program, random_genes(40), images, labels, want_logits=True, level=level)
    for first, last in ((0, 1), (1, 3), (3, 14), (14, 15)):
        some = supernet_eval(
            program, random_genes(40), images[first:last], labels[first:last], want_logits=True, level=level
        )
        assert torch.equal(some.logits, all_at_once.logits[:, first:last])


def mobilenet_paths() -> tuple[SupernetProgram, np.ndarray]:
    """Paths with long and short common beginnings, some of them twice."""
    torch.manual_seed(0)
    space = MobileNetSpace(ImageShape(3, 12, 12, 10), MobileNetOptions(stages=((8, 2, 1), (12, 2, 2))))
    program = path_programs(with_random_norms(space.supernet())).program((1, 1), 12, 12)
    layers = np.random.default_rng(0).choice([0, 1, 5, 6], (24, 4), p=[0.3, 0.3, 0.2, 0.2])
    layers[:, [0, 2]] %= 6  # the first layer of a stage cannot be left out
    layers[-3:] = layers[0]
    return program, np.hstack([np.ones((24, 2), dtype=np.int64), layers])


def chain_paths() -> tuple[SupernetProgram, np.ndarray]:
    """Layer after layer of one shape, so that the feature maps of all paths lie at the same few places."""
    torch.manual_seed(0)
    channels, layers = 8, 6
    nodes = [Node(channels, 6, 7)]
    for layer in range(layers):
        terms = []
        for choice in range(3):
            convolution = nn.Conv2d(channels, channels, 3, bias=False)
            norm = with_random_norms(nn.BatchNorm2d(channels), 3 * layer + choice)
            terms.append(Term(layer, TermKind.CONVOLUTION, 3, 1, True, convolution, norm, (layer, choice)))
        terms.append(Term(layer, TermKind.IDENTITY, choice=(layer, 3)))
        nodes.append(Node(channels, 6, 7, tuple(terms)))
    head = Head(layers, nn.Linear(channels, 10), with_random_norms(nn.BatchNorm2d(channels), 99))
    genes = np.random.default_rng(0).choice(4, (60, layers), p=[0.5, 0.2, 0.1, 0.2])
    return SupernetProgram(tuple(nodes), head, (4,) * layers), genes


@pytest.mark.parametrize("level", LEVELS + bfloat16_levels())
@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("make", [mobilenet_paths, chain_paths])
def test_a_path_scores_alike_whatever_is_scored_with_it(make, batches, level):
    """Paths go on from where they were still the same: that must not be seen in any bit."""
    program, genes = make()
    images, labels = images_and_labels(program, 13)
    calibration = [images_and_labels(program, 9, seed)[0] for seed in range(batches)]
    every_statistics = [Statistics.RECALIBRATED] if batches else [Statistics.RUNNING, Statistics.BATCH]
    for statistics, threads in itertools.product(every_statistics, (1, 3)):
        options = {"want_logits": True, "level": level, "threads": threads}
        together = supernet_eval(program, genes, images, labels, statistics, calibration, **options)
        for index in range(len(genes)):
            alone = supernet_eval(program, genes[[index]], images, labels, statistics, calibration, **options)
            assert torch.equal(alone.logits[0], together.logits[index])
            assert alone.loss[0] == together.loss[index]


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("make", [mobilenet_paths, chain_paths])
def test_paths_with_a_common_beginning_equal_the_reference(make, batches):
    program, genes = make()
    images, labels = images_and_labels(program, 13)
    calibration = [images_and_labels(program, 9, seed)[0] for seed in range(batches)]
    got = supernet_eval(program, genes, images, labels, Statistics.RECALIBRATED, calibration, want_logits=True)
    wanted = supernet_eval_reference(program, genes, images, labels, Statistics.RECALIBRATED, calibration)
    assert_equal_scores(got, wanted)


def test_images_need_not_be_contiguous():
    program = cell_program(4, 1, 6, 6)
    images, labels = images_and_labels(program, 8)
    expected = supernet_eval(program, random_genes(5), images[::2], labels[::2])
    strided = images.to(memory_format=torch.channels_last)[::2]
    got = supernet_eval(program, random_genes(5), strided, labels[::2])
    assert torch.equal(got.loss, expected.loss)


def test_nothing_to_score():
    program = cell_program(4, 1, 6, 6)
    images, labels = images_and_labels(program, 0)
    scores = supernet_eval(program, random_genes(3), images, labels)
    assert scores.loss.isnan().all()
    assert scores.correct.tolist() == [0, 0, 0]
    images, labels = images_and_labels(program, 4)
    assert len(supernet_eval(program, random_genes(0), images, labels).loss) == 0


def test_logits_that_are_not_finite_give_nan():
    program = cell_program(4, 1, 6, 6)
    images, labels = images_and_labels(program, 4)
    program.head.linear.weight.data[3, 0] = torch.nan
    scores = supernet_eval(program, random_genes(3), images, labels)
    assert scores.loss.isnan().all()
    images[0, 0, 0, 0] = torch.inf
    assert supernet_eval(cell_program(4, 1, 6, 6), random_genes(3), images, labels).loss.isnan().all()


def test_weights_are_read_anew_at_each_call():
    program = cell_program(4, 1, 6, 6)
    images, labels = images_and_labels(program, 4)
    before = supernet_eval(program, random_genes(3), images, labels)
    with torch.no_grad():
        program.tables.convolutions[0].weight.mul_(2.0)
    after = supernet_eval(program, random_genes(3), images, labels)
    assert not torch.equal(before.loss, after.loss)
    torch.testing.assert_close(
        after.loss, supernet_eval_reference(program, random_genes(3), images, labels).loss, rtol=1e-4, atol=1e-4
    )


def test_statistics_of_single_values_are_an_error():
    program = cell_program(4, 1, 1, 1)
    images, labels = images_and_labels(program, 1)
    with pytest.raises(NativeError, match="more than one value a channel"):
        supernet_eval(program, random_genes(2), images, labels, Statistics.BATCH)


def test_the_device_of_the_weights_is_asked_about_at_each_call():
    """What was described for one device is not taken for another one without a look at the weights."""
    program = cell_program(4, 1, 6, 6)
    describe(native.module(), program, torch.device("cpu"))
    with pytest.raises(NativeError, match="convolution 0 weight"):
        describe(native.module(), program, torch.device("cuda:0"))


def test_a_norm_without_weights_is_named():
    program = cell_program(4, 1, 6, 6)
    images, labels = images_and_labels(program, 4)
    program.norms[0].weight = None  # as with affine=False
    with pytest.raises(NativeError, match="norm 0 weight"):
        supernet_eval(program, random_genes(2), images, labels)


def test_weights_that_do_not_fit_are_named():
    program = cell_program(4, 1, 6, 6)
    images, labels = images_and_labels(program, 4)
    program.tables.norms[0].double()
    with pytest.raises(NativeError, match="norm 0 weight must have dtype"):
        supernet_eval(program, random_genes(2), images, labels)


@pytest.mark.parametrize("seed", range(40))
def test_no_table_can_crash_the_process(seed):
    rng = np.random.default_rng(seed)
    program = RandomProgram(seed).draw()
    images, labels = images_and_labels(program, 3)
    for _ in range(30):
        nodes, terms = program.tables.nodes.copy(), program.tables.terms.copy()
        table = nodes if rng.random() < 0.5 or not len(terms) else terms
        row, column = rng.integers(len(table)), rng.integers(table.shape[1])
        table[row, column] = rng.choice([-(2**63), -2, -1, 0, 1, 2, 7, 1 << 20, 2**63 - 1])
        tables = ProgramTables(nodes, terms, program.tables.convolutions, program.tables.norms)
        broken = SupernetProgram(program.nodes, program.head, program.choices)
        object.__setattr__(broken, "tables", tables)
        with contextlib.suppress(NativeError):
            supernet_eval(broken, random_genes(2, 3, 2), images, labels)


def one_layer_program(seed: int) -> SupernetProgram:
    """Convolutions of the image alone: no rounding meets numbers that differ in their last bits."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    inputs, outputs = (int(rng.choice([8, 9, 16, 24, 31, 40])) for _ in range(2))
    stride = int(rng.choice([1, 1, 2, 3]))
    height, width = int(rng.integers(1, 20)), int(rng.choice([1, 3, 4, 8, 15, 16, 17, 32, 40]))
    terms = []
    for decision, kernel in enumerate(rng.choice([1, 3, 5, 7], 3)):
        convolution = nn.Conv2d(inputs, outputs, int(kernel), bias=False)
        norm = with_random_norms(nn.BatchNorm2d(outputs), seed) if rng.random() < 0.7 else None
        rectified = bool(rng.random() < 0.5)
        terms.append(Term(0, TermKind.CONVOLUTION, int(kernel), stride, rectified, convolution, norm, (decision, 1)))
    size = -(-height // stride), -(-width // stride)
    nodes = Node(inputs, height, width), Node(outputs, *size, tuple(terms), bool(rng.random() < 0.3))
    return SupernetProgram(nodes, Head(1, nn.Linear(outputs, 10), None), (2, 2, 2))


def two_stride_program(seed: int) -> SupernetProgram:
    """A node whose convolutions read the image, stepping over pixels, and the pixels that this leaves."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    stride, channels = int(rng.integers(2, 5)), int(rng.choice([8, 17]))
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    kernels = rng.choice([1, 3, 5, 9, 15], 2)
    convolutions = [nn.Conv2d(channels, 24, int(kernel), bias=False) for kernel in kernels]
    size = -(-height // stride), -(-width // stride)
    terms = tuple(
        Term(source, TermKind.CONVOLUTION, int(kernel), step, False, convolution, None, (source, 1))
        for source, kernel, step, convolution in zip((0, 1), kernels, (stride, 1), convolutions, strict=True)
    )
    every = Term(0, TermKind.AVERAGE_POOL, 1, stride, False)
    nodes = Node(channels, height, width), Node(channels, *size, (every,)), Node(24, *size, terms)
    return SupernetProgram(nodes, Head(2, nn.Linear(24, 10), None), (2, 2, 2))


@pytest.mark.parametrize("level", bfloat16_levels())
@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("make", [one_layer_program, two_stride_program])
def test_one_layer_in_bfloat16_equals_the_reference(make, level, seed):
    program = make(seed)
    images, labels = images_and_labels(program, 1 + seed % 5)
    genes = np.array(list(itertools.product(range(2), repeat=3)))
    calibration = [images_and_labels(program, 8, 1)[0]]
    for statistics, batches in ((Statistics.RUNNING, ()), (Statistics.RECALIBRATED, calibration)):
        got = supernet_eval(program, genes, images, labels, statistics, batches, want_logits=True, level=level)
        wanted = supernet_eval_reference(program, genes, images, labels, statistics, batches, bfloat16=True)
        assert_equal_scores(got, wanted)
        exact = supernet_eval_reference(program, genes, images, labels, statistics, batches)
        assert not torch.allclose(got.logits, exact.logits, rtol=1e-5, atol=1e-6)  # something was rounded


@pytest.mark.parametrize("level", bfloat16_levels())
@pytest.mark.parametrize("statistics", list(Statistics))
@pytest.mark.parametrize(
    ("channels", "cells", "height", "width", "count"), [(16, 1, 8, 8, 13), (8, 2, 9, 7, 5), (20, 1, 5, 4, 9)]
)
def test_networks_in_bfloat16_lie_as_near_as_rounding_allows(level, statistics, channels, cells, height, width, count):
    """Sums that differ in the last bit may be rounded apart: not more than by what rounding does as a whole."""
    program = cell_program(channels, cells, height, width)
    images, labels = images_and_labels(program, count)
    batches = [images_and_labels(program, 7, size)[0] for size in (1, 2)]
    batches = batches if statistics is Statistics.RECALIBRATED else ()
    genes = random_genes(20)
    got = supernet_eval(program, genes, images, labels, statistics, batches, want_logits=True, level=level)
    wanted = supernet_eval_reference(program, genes, images, labels, statistics, batches, bfloat16=True)
    exact = supernet_eval_reference(program, genes, images, labels, statistics, batches)
    difference = (got.logits - wanted.logits).square().mean().sqrt()
    assert difference < 0.5 * (exact.logits - wanted.logits).square().mean().sqrt()


@pytest.mark.parametrize("level", bfloat16_levels())
def test_bfloat16_depends_neither_on_threads_nor_on_other_images(level):
    program = cell_program(16, 1, 8, 8)
    images, labels = images_and_labels(program, 15)
    all_at_once, alone = (
        supernet_eval(
            program, random_genes(20), images[:count], labels[:count], want_logits=True, level=level, threads=threads
        )
        for count, threads in ((15, 1), (4, 3))
    )
    assert torch.equal(all_at_once.logits[:, :4], alone.logits)


@pytest.mark.parametrize("level", bfloat16_levels())
def test_a_nan_stays_in_bfloat16(level):
    program = cell_program(8, 1, 6, 6)
    images, labels = images_and_labels(program, 3)
    images[1, 0, 2, 2] = math.nan
    scores = supernet_eval(program, random_genes(20), images, labels, want_logits=True, level=level)
    wanted = supernet_eval_reference(program, random_genes(20), images, labels)
    assert torch.equal(scores.logits.isnan(), wanted.logits.isnan())
    assert scores.logits.isnan().any()
