"""The promises of `nas_engine.spaces.base.SearchSpace` as tests: subclass, say how to build yours, run pytest."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas_engine.costs.analytic import AnalyticCost
from nas_engine.costs.measured import measured_peak_activation_bytes
from nas_engine.errors import ConfigError
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture

_ENUMERABLE = 20_000
"""Spaces with at most this many gene sequences are checked completely, larger ones on samples."""


class SpaceContract:
    """Subclass it as ``class TestMine(SpaceContract)`` and define the fixture `space`.

    Example::

        class TestMine(SpaceContract):
            @pytest.fixture
            def space(self):
                return MySpace(ImageShape(channels=3, height=16, width=16, classes=10))

    Attributes:
        samples: how many random architectures the checks of genes use.
        networks: how many of them are built and run.
    """

    samples = 50
    networks = 4

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test: every subclass defines it."""
        raise pytest.UsageError("a subclass of SpaceContract defines the fixture `space`")

    @pytest.fixture
    def architectures(self, space: SearchSpace) -> list[Architecture]:
        """The first and the last architecture in order of genes, then random ones."""
        rng = np.random.default_rng(0)
        ends = [Architecture(space.name, space.diagram.unrank(index)) for index in (0, space.size - 1)]
        return [*ends, *(space.sample(rng) for _ in range(self.samples))]

    def test_decode_inverts_encode(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """`decode(encode(a)) == a`, and different architectures have different texts."""
        texts = [space.encode(architecture) for architecture in architectures]
        assert [space.decode(text) for text in texts] == architectures
        assert len(set(texts)) == len(set(architectures))

    def test_key_round_trip(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """`from_key` inverts `Architecture.key`."""
        assert [space.from_key(architecture.key) for architecture in architectures] == architectures

    @pytest.mark.parametrize("text", ["", "no architecture", "|||", "-1"])
    def test_decode_refuses_other_text(self, space: SearchSpace, text: str) -> None:
        """Text that is no architecture is a ConfigError of one line."""
        with pytest.raises(ConfigError) as caught:
            space.decode(text)
        assert "\n" not in str(caught.value)

    def test_samples_are_valid(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """Samples pass the checked construction, and equal generators draw equal samples."""
        assert [space.architecture(architecture.genes) for architecture in architectures] == architectures
        first, second = (space.sample(np.random.default_rng(7)) for _ in range(2))
        assert first == second

    def test_several_samples_are_what_one_after_the_other_would_be(self, space: SearchSpace) -> None:
        """`samples` returns what as many calls of `sample` return, and leaves the generator where they do."""
        together, alone = np.random.default_rng(8), np.random.default_rng(8)
        assert space.samples(together, 5) == [space.sample(alone) for _ in range(5)]
        assert together.bit_generator.state == alone.bit_generator.state

    def test_size_is_the_number_of_architectures(self, space: SearchSpace) -> None:
        """`size` counts exactly the gene sequences that the checked construction takes."""
        if self._sequences(space) > _ENUMERABLE:
            assert space.size <= self._sequences(space)
            return
        valid = [genes for genes in self._all_sequences(space) if self._is_valid(space, genes)]
        assert space.size == len(valid)
        assert [architecture.genes for architecture in space] == valid

    def test_allowed_choices_lead_to_an_architecture(self, space: SearchSpace) -> None:
        """Whatever is chosen among the open choices, there is a next one, and the end is a valid architecture."""
        rng = np.random.default_rng(1)
        for _ in range(self.samples):
            genes: list[int] = []
            for decision in space.decisions:
                mask = space.mask(genes)
                assert mask.shape == (len(decision.choices),)
                assert mask.any()
                genes.append(int(rng.choice(np.flatnonzero(mask))))
            assert space.architecture(genes).genes == tuple(genes)

    def test_excluded_choices_lead_nowhere(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """No gene sequence that starts with a masked choice is valid (all of them, or random ones where too many)."""
        rng = np.random.default_rng(2)
        for architecture in architectures[:10]:
            for position in range(len(space.decisions)):
                prefix = architecture.genes[:position]
                for choice in np.flatnonzero(~space.mask(prefix)):
                    for rest in self._completions(space, position + 1, rng):
                        assert not self._is_valid(space, (*prefix, int(choice), *rest))

    def test_mask_refuses_what_is_no_open_prefix(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """A complete architecture has no next decision."""
        with pytest.raises(ConfigError):
            space.mask(architectures[0].genes)

    def test_construction_refuses_bad_genes(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """Too few genes, and a gene beyond the choices, are ConfigErrors."""
        genes = architectures[0].genes
        for bad in (genes[:-1], (*genes[:-1], len(space.decisions[-1].choices)), (-1, *genes[1:])):
            with pytest.raises(ConfigError):
                space.architecture(bad)

    def test_canonical_form(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """The canonical form is valid, its own canonical form, and no more expensive in parameters, then MACs."""
        forms = [space.canonical(architecture) for architecture in architectures]
        assert [space.architecture(form.genes) for form in forms] == forms
        assert [space.canonical(form) for form in forms] == forms
        price = AnalyticCost(space, with_memory=False).estimate
        for cost, canonical_cost in zip(price(architectures), price(forms), strict=True):
            assert tuple(canonical_cost) <= tuple(cost)

    def test_neighbours(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """The neighbours are all valid architectures one gene away, each once; the relation is symmetric."""
        for architecture in architectures[:3]:
            neighbours = space.neighbours(architecture)
            assert sorted(n.genes for n in neighbours) == sorted(self._valid_one_gene_changes(space, architecture))
            assert all(architecture in space.neighbours(neighbour) for neighbour in neighbours)

    def test_network_maps_images_to_logits(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """Stand-alone networks give finite logits [batch, classes], train, and repeat for equal seeds."""
        for architecture in architectures[: self.networks]:
            network, again = (_seeded(space, architecture) for _ in range(2))
            images = _images(space, batch=3)
            logits = network.train()(images)
            assert logits.shape == (3, space.shape.classes)
            assert torch.isfinite(logits).all()
            torch.autograd.backward(nn.functional.cross_entropy(logits, torch.zeros(3, dtype=torch.long)))
            assert all(parameter.grad is not None for parameter in network.parameters())
            assert torch.equal(logits, again.train()(images))

    def test_supernet_path_maps_images_to_logits(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """Each path of the supernet, the largest and the smallest too, gives finite logits that repeat."""
        supernet = space.supernet().eval()
        paths = [architecture.genes for architecture in architectures[: self.networks]]
        images = _images(space, batch=3)
        with torch.no_grad():
            for genes in (*paths, supernet.largest(), supernet.smallest()):
                assert space.architecture(genes).genes == tuple(genes)
                logits = supernet(images, genes)
                assert logits.shape == (3, space.shape.classes)
                assert torch.isfinite(logits).all()
                assert torch.equal(logits, supernet(images, genes))

    def test_smallest_and_largest_path(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """No architecture costs less MACs than the smallest path or more than the largest."""
        supernet = space.supernet()
        ends = [space.architecture(genes) for genes in (supernet.smallest(), supernet.largest())]
        macs = AnalyticCost(space, with_memory=False).estimate([*ends, *architectures])[:, 1]
        assert macs.min() == macs[0]
        assert macs.max() == macs[1]

    def test_costs_equal_the_built_network(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """The cost table gives the parameters, and half of the FLOPs that torch counts, to the last digit."""
        chosen = architectures[: self.networks]
        costs = AnalyticCost(space, with_memory=False)
        assert costs.names == ("params", "macs")
        for (params, macs), architecture in zip(costs.estimate(chosen), chosen, strict=True):
            network = space.build(architecture).eval()
            assert params == sum(parameter.numel() for parameter in network.parameters())
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(_images(space, batch=1))
            assert 2 * macs == counter.get_total_flops()

    def test_peak_activation_bytes_are_exact(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """The formula gives what the live tensors of a real forward pass add up to, to the last byte."""
        for architecture in architectures[: self.networks]:
            measured = measured_peak_activation_bytes(space.build(architecture), space.shape)
            assert space.peak_activation_bytes(architecture) == measured

    def test_the_memory_table_gives_the_same_bytes(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """Priced in one call, each peak is what the formula says for the architecture alone."""
        column = AnalyticCost(space).estimate(architectures)[:, -1]
        assert column.tolist() == [space.peak_activation_bytes(architecture) for architecture in architectures]

    def test_pickling(self, space: SearchSpace, architectures: list[Architecture]) -> None:
        """A space sent to another process is the same space."""
        copy = pickle.loads(pickle.dumps(space))
        assert (copy.name, copy.decisions, copy.shape, copy.size) == (
            space.name,
            space.decisions,
            space.shape,
            space.size,
        )
        assert [copy.canonical(a) for a in architectures] == [space.canonical(a) for a in architectures]

    @staticmethod
    def _sequences(space: SearchSpace) -> int:
        return math.prod(len(decision.choices) for decision in space.decisions)

    @staticmethod
    def _all_sequences(space: SearchSpace, start: int = 0) -> itertools.product[tuple[int, ...]]:
        return itertools.product(*(range(len(decision.choices)) for decision in space.decisions[start:]))

    @staticmethod
    def _is_valid(space: SearchSpace, genes: tuple[int, ...]) -> bool:
        try:
            space.architecture(genes)
        except ConfigError:
            return False
        return True

    def _completions(self, space: SearchSpace, start: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
        sizes = [len(decision.choices) for decision in space.decisions[start:]]
        if math.prod(sizes) <= self.samples:
            return list(self._all_sequences(space, start))
        return [tuple(int(rng.integers(size)) for size in sizes) for _ in range(self.samples)]

    def _valid_one_gene_changes(self, space: SearchSpace, architecture: Architecture) -> list[tuple[int, ...]]:
        changes = [
            (*architecture.genes[:position], gene, *architecture.genes[position + 1 :])
            for position, decision in enumerate(space.decisions)
            for gene in range(len(decision.choices))
            if gene != architecture.genes[position]
        ]
        return [genes for genes in changes if self._is_valid(space, genes)]


def _images(space: SearchSpace, batch: int) -> Tensor:
    shape = space.shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, shape.channels, shape.height, shape.width, generator=generator)


def _seeded(space: SearchSpace, architecture: Architecture) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return space.build(architecture)
