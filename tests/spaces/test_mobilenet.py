"""The mobilenet space: the contract on several sizes, what `canonical` merges and what not, costs by fvcore."""

from __future__ import annotations

import warnings
from math import prod

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from nas_engine.costs.analytic import AnalyticCost
from nas_engine.costs.measured import measured_peak_activation_bytes
from nas_engine.errors import ConfigError
from nas_engine.nn.supernet import Supernet
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.testing.space_contract import SpaceContract
from nas_engine.types import Architecture, ImageShape

DIGITS = ImageShape(1, 8, 8, 10)
CIFAR = ImageShape(3, 32, 32, 10)

# One size of each kind: defaults, non-square images, pixels above and below the image, everything mergeable.
ODD = MobileNetOptions(
    stages=((8, 1, 2), (20, 2, 1), (12, 2, 2)),
    kernels=(1, 5, 9),
    expansions=(1, 2, 5),
    width_multipliers=(0.3, 1.0, 1.7),
    resolutions=(7, 12, 16),
    stem_width=6,
    head_width=30,
)
TINY = MobileNetOptions(
    stages=((8, 2, 1), (8, 3, 2)),
    kernels=(3, 5),
    expansions=(2,),
    width_multipliers=(1.0, 1.01),
    resolutions=(0.98, 1.0),
    stem_width=8,
    head_width=8,
)


class TestDefaultOnDigits(SpaceContract):
    @pytest.fixture
    def space(self) -> MobileNetSpace:
        return MobileNetSpace(DIGITS)


class TestDefaultOnCifar(SpaceContract):
    networks = 3

    @pytest.fixture
    def space(self) -> MobileNetSpace:
        return MobileNetSpace(CIFAR)


class TestOddSizes(SpaceContract):
    @pytest.fixture
    def space(self) -> MobileNetSpace:
        return MobileNetSpace(ImageShape(2, 9, 14, 3), ODD)


class TestTiny(SpaceContract):
    """Small enough that the contract checks every gene sequence."""

    @pytest.fixture
    def space(self) -> MobileNetSpace:
        return MobileNetSpace(DIGITS, TINY)


@pytest.fixture(scope="module")
def digits_space() -> MobileNetSpace:
    return MobileNetSpace(DIGITS)


def test_decisions_and_size(digits_space: MobileNetSpace) -> None:
    assert [decision.name for decision in digits_space.decisions[:4]] == [
        "width",
        "resolution",
        "stage 1 layer 1",
        "stage 1 layer 2",
    ]
    assert digits_space.decisions[2].choices == ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")
    assert digits_space.decisions[3].choices == (*digits_space.decisions[2].choices, "skip")
    stages = [sum(6**layers for layers in range(1, depth + 1)) for depth in (2, 3, 3)]
    assert digits_space.size == 2 * 2 * prod(stages)


def test_after_a_skip_the_stage_ends(digits_space: MobileNetSpace) -> None:
    assert digits_space.mask([0, 0, 1, 6, 1]).tolist() == [True] * 7
    assert digits_space.mask([0, 0, 1, 6, 1, 6]).tolist() == [False] * 6 + [True]
    assert digits_space.mask([0, 0, 1, 6, 1, 6, 6]).tolist() == [True] * 6


def test_text(digits_space: MobileNetSpace) -> None:
    architecture = digits_space.architecture([0, 1, 1, 2, 0, 6, 6, 5, 3, 6])
    assert digits_space.encode(architecture) == "w0.75,r1|k3e6,k5e3|k3e3|k7e6,k5e6"
    assert digits_space.decode("w0.75,r1|k3e6,k5e3|k3e3|k7e6,k5e6") == architecture


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w0.75,r1|k3e6|k3e3", "has 2 stages, 'mobilenet' has 3"),
        ("w0.7,r1|k3e6|k3e3|k3e3", "'w0.7' in 'w0.7,r1' is no width: did you mean 'w0.75'? Allowed: w0.75, w1"),
        ("w1,1|k3e6|k3e3|k3e3", "'1' in 'w1,1' is no resolution: did you mean 'r1'? Allowed: r0.75, r1"),
        ("w1|k3e6|k3e3|k3e3", "'w1' is no width and resolution: write it like 'w0.75,r0.75'"),
        ("w1,r1,r1|k3e6|k3e3|k3e3", "'w1,r1,r1' is no width and resolution"),
        ("w1,r1|k4e6|k3e3|k3e3", "'k4e6' in stage 1 is no layer: did you mean"),
        ("w1,r1|k3e6|skip|k3e3", "'skip' in stage 2 is no layer"),
        ("w1,r1|k3e6||k3e3", "'' in stage 2 is no layer"),
        ("w1,r1|k3e6,k3e6,k3e6|k3e3|k3e3", "stage 1 has 3 layers"),
    ],
)
def test_faulty_text_names_the_part(digits_space: MobileNetSpace, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        digits_space.decode(text)
    assert message in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_masks_lead_to_valid_texts(digits_space: MobileNetSpace, data: st.DataObject) -> None:
    genes: list[int] = []
    while len(genes) < len(digits_space.decisions):
        genes.append(data.draw(st.sampled_from(np.flatnonzero(digits_space.mask(genes)).tolist())))
    architecture = digits_space.architecture(genes)
    assert digits_space.decode(digits_space.encode(architecture)) == architecture


def _random_supernet(space: MobileNetSpace) -> Supernet:
    """Every tap of a kernel counts; batch statistics (train mode) keep ReLU6 from saturating everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        supernet = space.supernet().double().train()
        for module in supernet.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight)
    return supernet


def _images(shape: ImageShape, count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, shape.channels, shape.height, shape.width, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        pytest.param(DIGITS, MobileNetOptions(), id="digits"),
        pytest.param(ImageShape(1, 5, 4, 3), MobileNetOptions(resolutions=(1.0,)), id="last maps of 2x1 pixels"),
        pytest.param(ImageShape(2, 9, 14, 3), ODD, id="odd"),
        pytest.param(DIGITS, TINY, id="tiny"),
    ],
)
def test_canonical_merges_exactly_what_computes_the_same(shape: ImageShape, options: MobileNetOptions) -> None:
    """Same canonical form: the same logits for the same weights. Another one: other logits."""
    space = MobileNetSpace(shape, options)
    supernet, images, rng = _random_supernet(space), _images(shape, 6), np.random.default_rng(0)
    merged = 0
    with torch.no_grad():
        for _ in range(8):
            architecture = space.sample(rng)
            canonical = space.canonical(architecture)
            logits = supernet(images, canonical.genes)
            torch.testing.assert_close(supernet(images, architecture.genes), logits, rtol=1e-9, atol=1e-9)
            merged += canonical != architecture
            neighbours = space.neighbours(canonical)
            for index in rng.choice(len(neighbours), 8, replace=False):
                neighbour = neighbours[index]
                same = torch.allclose(supernet(images, neighbour.genes), logits, rtol=1e-7, atol=1e-9)
                assert same == (space.canonical(neighbour) == canonical), (canonical.key, neighbour.key)
    assert merged > 0


def test_canonical_merges_equal_channels_and_pixels() -> None:
    space = MobileNetSpace(DIGITS, TINY)
    assert space.canonical(space.architecture([1, 1, 0, 0, 0, 0, 0])).genes == (0, 0, 0, 0, 0, 0, 0)


def test_costs_equal_fvcore() -> None:
    """A second, independent counter; its totals add pooling and BatchNorm, so only convolutions and linear count."""
    space, rng = MobileNetSpace(CIFAR), np.random.default_rng(1)
    chosen = [space.sample(rng) for _ in range(6)]
    for architecture, (params, macs) in zip(
        chosen, AnalyticCost(space, with_memory=False).estimate(chosen), strict=True
    ):
        network = space.build(architecture).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts = FlopCountAnalysis(network, _images(CIFAR, 1, torch.float32)).unsupported_ops_warnings(False)
            assert macs == counts.by_operator()["conv"] + counts.by_operator()["linear"]
        assert params == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("shape", [ImageShape(1, 6, 6, 10), ImageShape(3, 16, 24, 100), ImageShape(4, 5, 31, 2)])
def test_peak_activation_bytes_are_exact(shape: ImageShape) -> None:
    space = MobileNetSpace(shape, MobileNetOptions(expansions=(1, 6), head_width=500, resolutions=(0.8, 1.0)))
    rng = np.random.default_rng(2)
    for architecture in [space.sample(rng) for _ in range(6)]:
        network = space.build(architecture)
        assert space.peak_activation_bytes(architecture) == measured_peak_activation_bytes(network, shape)


def test_channels_are_multiples_of_four() -> None:
    space = MobileNetSpace(CIFAR, MobileNetOptions(width_multipliers=(0.1, 0.75, 1.35)))
    config = [space.build(space.architecture([w, 0, *[0] * 8])).config for w in range(3)]
    widths = [[c["stem_width"], *(layer[2] for layer in c["layers"]), c["head_width"]] for c in config]
    assert all(width % 4 == 0 for row in widths for width in row)
    assert widths[1] == [12, 12, 12, 20, 20, 20, 32, 32, 32, 96]  # 0.75 * (16, 24, 40, 128); 18 goes up
    assert min(widths[0]) == 4


def test_images_too_small_for_the_strides() -> None:
    with pytest.raises(ConfigError, match=r"images of 3x3 pixels .* too small for a total stride of 4"):
        MobileNetSpace(ImageShape(1, 4, 4, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": (4,)}, "must be odd"),
        ({"kernels": (5, 3)}, "must ascend"),
        ({"width_multipliers": (1.0, 1.0)}, "must ascend"),
        ({"resolutions": (0.5, 24)}, "either all fractions"),
        ({"resolutions": (24.5,)}, "either all fractions"),
        ({"stages": ()}, "at least 1"),
        ({"stages": ((16, 0, 1),)}, "greater than or equal to 1"),
        ({"stages": ((16, 1, 3),)}, "less than or equal to 2"),
    ],
)
def test_options_that_make_no_space(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MobileNetOptions(**options)


def test_architecture_of_the_whole_space_by_key(digits_space: MobileNetSpace) -> None:
    last = Architecture("mobilenet", digits_space.diagram.unrank(digits_space.size - 1))
    assert digits_space.from_key(last.key) == last
