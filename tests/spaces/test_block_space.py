"""The space for tests is a real one: exact costs, a canonical form that keeps the function, a supernet that runs."""

from __future__ import annotations

import pytest
import torch

from nas_engine.errors import ConfigError
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions

SPACE = BlockSpace(options=BlockSpaceOptions(blocks=3, widths=3, merge_skips=True, max_total_width=4))
IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", list(SPACE), ids=lambda architecture: architecture.key)
def test_costs_are_those_of_the_built_network(architecture):
    table = SPACE.cost_table()
    params, macs = table.constant[0] + sum(table.entries[0, d, gene] for d, gene in enumerate(architecture.genes))
    network = SPACE.build(architecture)
    linears = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert params == sum(weight.numel() for weight in network.parameters())
    assert macs == sum(layer.weight.numel() for layer in linears)
    assert network(IMAGES).shape == (5, 10)


def test_canonical_keeps_the_function_for_matching_weights():
    supernet = SPACE.supernet()
    with torch.no_grad():
        for architecture in SPACE:
            canonical = SPACE.canonical(architecture)
            assert SPACE.canonical(canonical) == canonical
            used = [block for block, gene in enumerate(architecture.genes) if gene]
            moved = SPACE.supernet()
            moved.load_state_dict(supernet.state_dict())
            for target, source in enumerate(used):
                moved.blocks[target].load_state_dict(supernet.blocks[source].state_dict())
            torch.testing.assert_close(moved(IMAGES, canonical.genes), supernet(IMAGES, architecture.genes))


def test_text_round_trip_and_bounds():
    for architecture in SPACE:
        assert SPACE.decode(SPACE.encode(architecture)) == architecture
    assert SPACE.supernet().largest() == (2, 2, 0)
    assert SPACE.supernet().smallest() == (0, 0, 0)
    with pytest.raises(ConfigError, match="no hidden width"):
        SPACE.decode("1-x-0")
    with pytest.raises(ConfigError, match="masks"):
        SPACE.decode("2-2-2")
