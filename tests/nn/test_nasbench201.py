"""The NAS-Bench-201 networks against the authors' definition, each other, the supernet and independent counters."""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
from collections import Counter, defaultdict
from functools import cache

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from nas_engine.costs.analytic import AnalyticCost
from nas_engine.nn import nasbench201
from nas_engine.nn.nasbench201 import (
    EDGES,
    OPERATIONS,
    Edge,
    NASBench201Network,
    edge_name,
    live_edges,
    make_operation,
    run_cell,
)
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.spaces.nasbench201_canonical import Genes, representatives, without_dead_edges
from nas_engine.types import Architecture, ImageShape

SHAPES = [ImageShape(1, 8, 8, 10), ImageShape(3, 4, 7, 2), ImageShape(2, 9, 5, 33), ImageShape(3, 32, 32, 10)]
ALL_CELLS = NASBench201Options(channels=4, allow_disconnected=True)
any_genes = st.tuples(*[st.integers(0, len(OPERATIONS) - 1)] * len(EDGES))


def network_of(genes: Genes, seed: int = 0, cells: int = 1) -> NASBench201Network:
    """Eval mode, float64, and nothing at its initial value: not even BatchNorm's bias, mean and variance."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NASBench201Network([OPERATIONS[gene] for gene in genes], 3, cells, 2, 5).double().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 2.0)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.normal_()
    return network


def images_of(channels: int = 2, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(2, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def convolutions(genes: Genes) -> list[Edge]:
    return [e for e, gene in zip(EDGES, without_dead_edges(genes), strict=True) if "conv" in OPERATIONS[gene]]


def expression(genes: Genes, label_of: dict[Edge, Edge]) -> frozenset[object]:
    """What a cell computes, as a counted sum of terms, with a label on each convolution that stands for its weights."""
    nodes: list[Counter[object]] = [Counter(), Counter(), Counter(), Counter()]
    nodes[0][0, "input"] = 1
    for (source, target), gene in zip(EDGES, genes, strict=True):
        operation, terms = OPERATIONS[gene], nodes[source]
        if operation == "skip_connect":
            nodes[target].update(terms)
        elif operation == "avg_pool_3x3":
            nodes[target].update({(pooled + 1, atom): count for (pooled, atom), count in terms.items()})
        elif operation != "none" and terms:
            label = label_of.get((source, target), (source, target))
            nodes[target][0, (operation, label, frozenset(terms.items()))] += 1
    return frozenset(nodes[3].items())


def pairings(first: Genes, second: Genes) -> list[dict[Edge, Edge]]:
    """All ways to give each convolution of `second` the weights of one of the same kind of `first`."""
    edges = [convolutions(genes) for genes in (first, second)]
    kinds = [
        {kind: [e for e in own if genes[EDGES.index(e)] == kind] for kind in (2, 3)}
        for genes, own in zip((first, second), edges, strict=True)
    ]
    if any(len(kinds[0][kind]) != len(kinds[1][kind]) for kind in (2, 3)):
        return []
    arrangements = itertools.product(*(itertools.permutations(kinds[0][kind]) for kind in (2, 3)))
    targets = [*kinds[1][2], *kinds[1][3]]
    return [dict(zip(targets, itertools.chain(*arrangement), strict=True)) for arrangement in arrangements]


def matching(first: Genes, second: Genes) -> dict[Edge, Edge] | None:
    """The pairing under which both cells are the same expression, if there is one."""
    expected = expression(first, {})
    return next((pairing for pairing in pairings(first, second) if expression(second, pairing) == expected), None)


def load_matching(target: nn.Module, source: nn.Module, pairing: dict[Edge, Edge]) -> None:
    """Copy all weights and statistics, those of each convolution from the one it is paired with."""
    own = source.state_dict()
    names = {edge_name(edge): edge_name(paired) for edge, paired in pairing.items()}
    state = {}
    for key in target.state_dict():
        parts = [names.get(part, part) for part in key.split(".")]
        state[key] = own[".".join(parts)]
    target.load_state_dict(state)


@cache
def classes() -> list[list[Genes]]:
    members = defaultdict(list)
    for genes, representative in representatives().items():
        members[representative].append(genes)
    return [group for group in members.values() if len(group) > 1]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_cells_of_one_class_compute_the_same_function(data):
    group = data.draw(st.sampled_from(classes()))
    first, second = data.draw(st.sampled_from(group)), data.draw(st.sampled_from(group))
    pairing = matching(first, second)
    assert pairing is not None
    one, other = network_of(first, seed=1, cells=2), network_of(second, seed=2, cells=2)
    load_matching(other, one, pairing)
    with torch.no_grad():
        torch.testing.assert_close(one(images_of()), other(images_of()), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=150)
@given(any_genes, any_genes)
def test_cells_are_of_one_class_if_and_only_if_an_expression_matches(first, second):
    same = representatives()[first] == representatives()[second]
    assert same == (matching(first, second) is not None)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_small_changes_leave_the_class_if_and_only_if_no_expression_matches(data):
    first = data.draw(any_genes)
    edge = data.draw(st.integers(0, len(EDGES) - 2))
    second = list(first)
    second[edge], second[edge + 1] = second[edge + 1], second[edge]
    same = representatives()[first] == representatives()[tuple(second)]
    assert same == (matching(first, tuple(second)) is not None)


@pytest.mark.slow
def test_cells_of_different_classes_compute_different_functions():
    """Complete over the space: no law is missing that would merge two of the 5,044 classes."""
    by_output = defaultdict(list)
    for genes in set(representatives().values()):
        kinds = tuple(sorted(genes[EDGES.index(edge)] for edge in convolutions(genes)))
        same_weights = dict.fromkeys(EDGES, EDGES[0])
        by_output[kinds, round(float(cell_output(genes, same_weights).square().mean()), 9)].append(genes)
    # Cells that differ even though all convolutions of a kind have the same weights differ under every pairing. Of
    # the others, each pairing is tried with weights that differ.
    for group in by_output.values():
        for first, second in itertools.combinations(group, 2):
            expected = cell_output(first, {})
            for pairing in pairings(first, second):
                assert not torch.allclose(cell_output(second, pairing), expected, rtol=1e-6, atol=1e-6)


def cell_output(genes: Genes, weights_of: dict[Edge, Edge]) -> Tensor:
    """Output of one cell whose edge e has weights number ``weights_of[e]`` (its own by default)."""
    operations = dict(zip(EDGES, (OPERATIONS[gene] for gene in genes), strict=True))

    def operation_of(edge: Edge) -> nn.Module:
        return candidate(operations[edge], weights_of.get(edge, edge))

    with torch.no_grad():
        return run_cell(images_of(4, 3, 4), live_edges(list(operations.values())), operation_of)


@cache
def candidate(name: str, weights: Edge) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(10 * weights[0] + weights[1])
        operation = make_operation(name, 4).double().eval()
        for parameter in operation.parameters():
            nn.init.normal_(parameter)
    return operation


@settings(deadline=None, max_examples=20)
@given(any_genes.filter(lambda genes: any(without_dead_edges(genes))))
def test_logits_equal_the_published_definition(genes):
    network = network_of(genes, cells=2)
    with torch.no_grad():
        expected = published_logits(network, without_dead_edges(genes))
        torch.testing.assert_close(network(images_of()), expected, rtol=1e-9, atol=1e-9)


def published_logits(network: NASBench201Network, genes: Genes) -> Tensor:
    """Forward pass as in the authors' TinyNetwork, InferCell and ResNetBasicblock, for images of even size."""

    def conv_bn(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, stride: int = 1) -> Tensor:
        x = functional.conv2d(x, conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2)
        return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    def cell(layer: nn.Module, x: Tensor) -> Tensor:
        nodes = [x]
        for node in (1, 2, 3):
            terms = []
            for (source, target), gene in zip(EDGES, genes, strict=True):
                if target == node:
                    terms.append(edge_output(layer, (source, target), OPERATIONS[gene], nodes[source]))
            nodes.append(sum(terms[1:], start=terms[0]))
        return nodes[-1]

    def edge_output(layer: nn.Module, edge: Edge, operation: str, x: Tensor) -> Tensor:
        if operation == "none":
            return torch.zeros_like(x)
        if operation == "skip_connect":
            return x
        if operation == "avg_pool_3x3":
            return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        _, conv, norm = layer.edges[edge_name(edge)]
        return conv_bn(functional.relu(x), conv, norm)

    def reduction(layer: nn.Module, x: Tensor) -> Tensor:
        _, conv_a, norm_a, _, conv_b, norm_b = layer.residual
        residual = conv_bn(functional.relu(x), conv_a, norm_a, stride=2)
        residual = conv_bn(functional.relu(residual), conv_b, norm_b)
        return functional.conv2d(functional.avg_pool2d(x, 2), layer.shortcut[1].weight) + residual

    features = conv_bn(images_of(), *network.stem)
    for layer in network.body:
        features = reduction(layer, features) if hasattr(layer, "residual") else cell(layer, features)
    norm, _, _, _, linear = network.head
    features = functional.relu(
        functional.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return functional.linear(features.mean((2, 3)), linear.weight, linear.bias)


@settings(deadline=None, max_examples=30)
@given(any_genes)
def test_edges_without_effect_are_not_built(genes):
    on_a_path = {edge for path in paths(genes) for edge in path}
    network = network_of(genes)
    built = {name for name, _ in network.body[0].edges.named_children()}
    assert built == {edge_name(edge) for edge in on_a_path}


def paths(genes: Genes) -> list[list[Edge]]:
    gene_of = dict(zip(EDGES, genes, strict=True))
    routes = ([(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)])
    return [route for route in routes if all(gene_of[edge] for edge in route)]


def test_a_cell_without_a_path_ignores_the_image():
    network = network_of((3, 3, 3, 0, 0, 0))
    with torch.no_grad():
        assert torch.equal(network(images_of()), network(2 * images_of() + 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_and_macs_equal_independent_counters(shape):
    space = NASBench201Space(shape, NASBench201Options(channels=6, cells=2, allow_disconnected=True))
    sample = [
        Architecture("nasbench201", genes) for genes in ((0,) * 6, (3,) * 6, (2, 0, 1, 0, 4, 3), (0, 3, 3, 2, 1, 2))
    ]
    images = torch.zeros(1, shape.channels, shape.height, shape.width)
    for (params, macs), architecture in zip(
        AnalyticCost(space, with_memory=False).estimate(sample), sample, strict=True
    ):
        network = space.build(architecture).eval()
        assert params == sum(parameter.numel() for parameter in network.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images)
        assert 2 * macs == counter.get_total_flops()
        by_operator = FlopCountAnalysis(network, images).unsupported_ops_warnings(False).by_operator()
        assert macs == by_operator["conv"] + by_operator["linear"]


@settings(deadline=None, max_examples=25)
@given(any_genes, st.integers(1, 2), st.integers(4, 9), st.integers(4, 9), st.integers(1, 3), st.integers(1, 5))
def test_any_image_size_gives_logits_without_nan(genes, per_stage, height, width, channels, classes):
    shape = ImageShape(channels, height, width, classes)
    space = NASBench201Space(shape, NASBench201Options(channels=2, cells=per_stage, allow_disconnected=True))
    logits = space.build(Architecture("nasbench201", genes))(torch.rand(2, channels, height, width))
    assert logits.shape == (2, classes)
    assert torch.isfinite(logits).all()


def test_the_configuration_rebuilds_the_network():
    network = network_of((3, 2, 4, 1, 0, 3), cells=2)
    again = NASBench201Network(**network.config).double().eval()
    again.load_state_dict(network.state_dict())
    assert ast.literal_eval(repr(network.config)) == network.config
    with torch.no_grad():
        assert torch.equal(again(images_of()), network(images_of()))


def test_the_source_needs_torch_alone():
    tree = ast.parse(inspect.getsource(nasbench201))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} <= {"torch", *sys.stdlib_module_names}


@settings(deadline=None, max_examples=20)
@given(any_genes)
def test_a_supernet_path_equals_the_stand_alone_network(genes):
    space = NASBench201Space(ImageShape(2, 7, 8, 5), ALL_CELLS)
    supernet = space.supernet().eval()
    network = space.build(Architecture("nasbench201", genes)).eval()
    load_path(network, supernet, genes)
    images = torch.rand(3, 2, 7, 8)
    with torch.no_grad():
        assert torch.equal(supernet(images, genes), network(images))


def load_path(network: nn.Module, supernet: nn.Module, genes: Genes) -> None:
    names = {edge_name(edge): f"{edge_name(edge)}.{OPERATIONS[gene]}" for edge, gene in zip(EDGES, genes, strict=True)}
    shared = supernet.state_dict()
    state = {}
    for key in network.state_dict():
        state[key] = shared[".".join(names.get(part, part) for part in key.split("."))]
    network.load_state_dict(state)


@settings(deadline=None, max_examples=20)
@given(any_genes)
def test_a_supernet_path_trains_and_computes_only_what_is_live(genes):
    space = NASBench201Space(ImageShape(2, 7, 8, 5), ALL_CELLS)
    supernet = space.supernet()
    with FlopCounterMode(display=False) as counter:
        logits = supernet(torch.rand(3, 2, 7, 8), genes)
    assert counter.get_total_flops() == 3 * 2 * AnalyticCost(space).estimate([Architecture("nasbench201", genes)])[0, 1]
    logits.sum().backward()
    trained = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    in_cells = {name.split(".")[3] for name in trained if ".edges." in name}
    assert in_cells == {edge_name(edge) for edge in convolutions(genes)}


def test_gradients_pass_through_every_candidate_operation():
    """The in-place operations and freed feature maps leave the gradients right: compared with finite differences."""
    for gene in range(1, len(OPERATIONS)):
        network = network_of((gene,) * 6)
        assert torch.autograd.gradcheck(network, images_of(2, 4, 4).requires_grad_(), fast_mode=True)
