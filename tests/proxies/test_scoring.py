"""Proxies of architectures: seeded, charged, and data even where a network fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from nas_engine.data.base import ImageDataset
from nas_engine.data.loading import load_dataset
from nas_engine.errors import ConfigError
from nas_engine.proxies.base import check_proxy_names
from nas_engine.proxies.memory import ProxyMemory
from nas_engine.proxies.scoring import PROXIES, NetworkProxies
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def space(digits: ImageDataset) -> NASBench201Space:
    return NASBench201Space(digits.shape, NASBench201Options(channels=4))


def some(space: NASBench201Space, count: int) -> list[Architecture]:
    return [space.sample(np.random.default_rng(seed)) for seed in range(count)]


def test_values_depend_on_architecture_and_seed_alone(space: NASBench201Space, digits: ImageDataset) -> None:
    """Not on the order, not on the global generator, which is left alone."""
    architectures, generator = some(space, 3), torch.random.get_rng_state()
    values = NetworkProxies(space, digits, tuple(PROXIES), seed=3)(architectures)
    assert torch.equal(generator, torch.random.get_rng_state())
    torch.manual_seed(77)
    again = NetworkProxies(space, digits, ("synflow", "naswot"), seed=3)
    assert np.array_equal(again(architectures[::-1]), values[::-1, [1, 0]])
    assert not np.array_equal(NetworkProxies(space, digits, tuple(PROXIES), seed=4)(architectures), values)
    assert np.isfinite(values).all()


def test_counts_its_seconds(space: NASBench201Space, digits: ImageDataset) -> None:
    ticks = iter(range(1_000))
    proxies = NetworkProxies(space, digits, ["naswot"], clock=lambda: float(next(ticks)))
    assert proxies.seconds == 0
    proxies(some(space, 2))
    # Two readings around the call, two around each proxy of each architecture.
    assert proxies.seconds == 5
    assert proxies(()).shape == (0, 1)


def test_a_network_that_fails_has_no_values(digits: ImageDataset, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(NASBench201Space):
        def build(self, architecture: Architecture) -> nn.Module:  # type: ignore[override]
            return nn.Linear(3, 3)

    broken = Broken(digits.shape)
    values = NetworkProxies(broken, digits, ["grad_norm", "synflow"])(some(broken, 2))
    assert np.isnan(values).all()
    assert "grad_norm of nasbench201:" in caplog.text


def test_a_network_that_cannot_be_built_has_no_values(digits: ImageDataset) -> None:
    class Unbuilt(NASBench201Space):
        def build(self, architecture: Architecture) -> nn.Module:  # type: ignore[override]
            raise RuntimeError("no memory")

    unbuilt = Unbuilt(digits.shape)
    assert np.isnan(NetworkProxies(unbuilt, digits, ["synflow"])(some(unbuilt, 2))).all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["nasswot"], "did you mean 'naswot'?"), (["synflow", "synflow"], "names one twice"), (["zen"], "Allowed: grad")],
)
def test_bad_names_are_one_line(names: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=r"^controller\.proxies: [^\n]*$") as caught:
        check_proxy_names(names, tuple(PROXIES))
    assert expected in str(caught.value)


class Listed:
    """Values by the first gene; NaN, infinities and ties among them."""

    names = ("one", "other")
    values: ClassVar = {0: (1.0, 5.0), 1: (2.0, math.nan), 2: (-math.inf, 7.0), 3: (3.0, 7.0), 4: (1e12, -2.0)}

    def __init__(self) -> None:
        self.seconds, self.asked = 0.0, []

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        self.asked += [a.genes[0] for a in architectures]
        return np.array([self.values[a.genes[0]] for a in architectures])


NUMBERS = BlockSpace(options=BlockSpaceOptions(blocks=1, widths=10))


def numbered(*numbers: int) -> list[Architecture]:
    return [Architecture(NUMBERS.name, (number,)) for number in numbers]


def test_memory_pays_once() -> None:
    source = Listed()
    memory = ProxyMemory(source, NUMBERS)
    memory.compute(numbered(0, 1, 0))
    memory.compute(numbered(1, 2))
    assert source.asked == [0, 1, 2]


def test_standing_is_that_of_the_rank() -> None:
    """Normal quantiles of (rank - 1/2) / n: neither outliers nor infinities stretch the scale; NaN is 0."""
    memory = ProxyMemory(Listed(), NUMBERS)
    assert np.array_equal(memory.normal_scores(numbered(0, 1)), np.zeros((2, 2)))
    memory.compute(numbered(0, 1, 2, 3, 4))
    standing = memory.normal_scores(numbered(2, 0, 1, 3, 4))
    quantiles = [-1.2815515655446008, -0.5244005127080409, 0.0, 0.5244005127080407, 1.2815515655446004]
    assert standing[:, 0] == pytest.approx(quantiles)
    # Of the other proxy four are known, of which two are equal and best: ranks 3 and 4 are both 3.5.
    assert standing[:, 1] == pytest.approx([0.6744897501960817, -0.3186393639643752, 0, 0.6744897501960817,
                                            -1.1503493803760079])  # fmt: skip


def test_all_are_compared_with_those_of_the_first_call() -> None:
    """However many good ones are looked at later, none of them stands any worse."""
    memory = ProxyMemory(Listed(), NUMBERS)
    memory.compute(numbered(0, 1, 2))
    before = memory.normal_scores(numbered(0, 1, 2))
    memory.compute(numbered(3, 4))
    assert np.array_equal(memory.normal_scores(numbered(0, 1, 2)), before)
    # Both are above all three, as far as three can tell.
    assert memory.normal_scores(numbered(3, 4))[:, 0] == pytest.approx([0.9674215661017014] * 2)


def test_what_was_not_computed_is_expected_from_the_features(space: NASBench201Space) -> None:
    """A proxy that is the logarithm of the MACs, which is a feature: estimates are nearly what would be computed."""

    class Costs:
        names, seconds = ("macs",), 0.0

        def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
            return np.log(space.known_metrics(space.genes(architectures))[:, 1:2])

    rng = np.random.default_rng(6)
    memory, asked = ProxyMemory(Costs(), space), [space.sample(rng) for _ in range(300)]
    assert not memory.normal_scores(asked).any()
    memory.compute([space.sample(rng) for _ in range(200)])
    expected = memory.normal_scores(asked)
    memory.compute(asked)
    assert scipy.stats.spearmanr(expected, memory.normal_scores(asked)).statistic > 0.95
    # Values that are known count from now on.
    assert not np.allclose(expected, memory.normal_scores(asked))


def test_the_best_have_the_highest_mean_rank() -> None:
    memory = ProxyMemory(Listed(), NUMBERS)
    assert memory.best(3) == []
    memory.compute(numbered(0, 1, 2, 3, 4))
    # Mean quantiles: 3: (0.7 + 0.75) / 2; 4: (0.9 + 0.125) / 2; 1: (0.5 + 0.5) / 2; 2: (0.1 + 0.75) / 2; 0: lower.
    assert memory.best(9) == numbered(3, 4, 1, 2, 0)


def test_memory_goes_on_from_its_state() -> None:
    source = Listed()
    memory, resumed = ProxyMemory(Listed(), NUMBERS), ProxyMemory(source, NUMBERS)
    memory.compute(numbered(3, 1, 2))
    resumed.load_state_dict(memory.state_dict())
    resumed.compute(numbered(2, 4))
    memory.compute(numbered(4))
    assert source.asked == [4]
    assert np.array_equal(resumed.normal_scores(numbered(0, 1, 2, 3, 4)), memory.normal_scores(numbered(0, 1, 2, 3, 4)))
    assert list(resumed.values) == list(memory.values)


def test_memory_goes_on_from_a_state_without_a_reference() -> None:
    """Runs begun when all values were compared with one another: those of the checkpoint become the reference."""
    memory, resumed = ProxyMemory(Listed(), NUMBERS), ProxyMemory(Listed(), NUMBERS)
    memory.compute(numbered(0, 1, 2))
    resumed.load_state_dict({key: value for key, value in memory.state_dict().items() if key != "reference_size"})
    assert np.array_equal(resumed.normal_scores(numbered(0, 1, 2)), memory.normal_scores(numbered(0, 1, 2)))
