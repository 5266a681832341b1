"""The promises of `nas_engine.controllers.base.Controller` as tests: subclass, say how to build yours, run pytest."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from nas_engine.controllers.base import Controller, Diagnostics
from nas_engine.spaces.base import SearchSpace
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture, ImageShape, StateDict

MakeController = Callable[[SearchSpace, int], Controller]

_SHAPE = ImageShape(1, 8, 8, 10)


class ControllerContract:
    """Subclass it as ``class TestMine(ControllerContract)`` and define the fixture `make_controller`.

    Example::

        class TestMine(ControllerContract):
            @pytest.fixture
            def make_controller(self):
                return lambda space, seed: MyController(space, MyController.Options(), seed)

    The fixtures `space` and `tiny_space` may be overridden too; both must hold more than one architecture, and
    `tiny_space` few enough that the tests can list and exhaust it.
    """

    @pytest.fixture
    def make_controller(self) -> MakeController:
        """How to build the controller for (space, seed): every subclass defines it."""
        raise pytest.UsageError("a subclass of ControllerContract defines the fixture `make_controller`")

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Masks that depend on the prefix, and a canonical form that merges: 993 of 2,693."""
        return BlockSpace(_SHAPE, BlockSpaceOptions(blocks=5, widths=5, merge_skips=True, max_total_width=13))

    @pytest.fixture
    def tiny_space(self) -> SearchSpace:
        """14 canonical architectures of 26 valid ones."""
        return BlockSpace(_SHAPE, BlockSpaceOptions(blocks=3, widths=3, merge_skips=True, max_total_width=5))

    def test_proposals_are_valid_and_canonical(self, make_controller: MakeController, space: SearchSpace) -> None:
        """Every proposal is an architecture of the space in canonical form, and `propose(n)` returns n of them."""
        controller = make_controller(space, 0)
        for count in (1, 7, 10, 3):
            proposed = controller.propose(count)
            assert len(proposed) == count
            for architecture in proposed:
                assert space.architecture(architecture.genes) == architecture
                assert space.canonical(architecture) == architecture
            controller.update(proposed, _rewards(proposed))

    def test_never_proposes_twice(self, make_controller: MakeController, space: SearchSpace) -> None:
        """100 proposals, of a space that holds many more, are 100 different architectures."""
        proposed = _search(make_controller(space, 1), steps=10)
        assert len(set(proposed)) == len(proposed) == 100

    def test_proposals_without_an_update_between_differ(
        self, make_controller: MakeController, space: SearchSpace
    ) -> None:
        """Architectures that wait for their reward are not proposed again."""
        controller = make_controller(space, 2)
        proposed = [*controller.propose(10), *controller.propose(10)]
        assert len(set(proposed)) == 20
        controller.update(proposed[:10], _rewards(proposed[:10]))
        controller.update(proposed[10:], _rewards(proposed[10:]))
        assert not set(proposed) & set(controller.propose(10))

    def test_never_proposes_what_it_was_told(self, make_controller: MakeController, tiny_space: SearchSpace) -> None:
        """Architectures that others evaluated (a warm start, a resumed run) are not proposed."""
        controller = make_controller(tiny_space, 3)
        everything = _canonical_architectures(tiny_space)
        told = everything[::2]
        controller.update(told, _rewards(told))
        proposed = controller.propose(len(everything) - len(told))
        assert set(proposed) == set(everything) - set(told)

    @pytest.mark.parametrize("count", [1, 4])
    def test_exhausts_a_tiny_space(self, make_controller: MakeController, tiny_space: SearchSpace, count: int) -> None:
        """All architectures are proposed before any is repeated; after that the search still goes on."""
        controller = make_controller(tiny_space, 4)
        everything = _canonical_architectures(tiny_space)
        steps = math.ceil(len(everything) / count)
        proposed = _search(controller, steps, count)
        assert set(proposed[: len(everything)]) == set(everything)
        for architecture in _search(controller, 2, count):
            assert architecture in everything

    def test_same_seed_same_proposals(self, make_controller: MakeController, space: SearchSpace) -> None:
        """Two controllers with one seed agree, whatever happens to the global generators; another seed differs."""
        first = _search(make_controller(space, 5), steps=4)
        torch.manual_seed(99)
        torch.rand(3)
        second = _search(make_controller(space, 5), steps=4)
        assert first == second
        assert first[:10] != _search(make_controller(space, 6), steps=1)

    def test_leaves_the_global_generator_alone(self, make_controller: MakeController, space: SearchSpace) -> None:
        """Building, proposing and updating neither read nor move torch's global generator."""
        before = torch.random.get_rng_state()
        _search(make_controller(space, 7), steps=2)
        assert torch.equal(before, torch.random.get_rng_state())

    @pytest.mark.parametrize("between_propose_and_update", [False, True])
    def test_continues_exactly_from_a_saved_state(
        self, make_controller: MakeController, space: SearchSpace, between_propose_and_update: bool
    ) -> None:
        """A fresh controller of another seed that loads the state goes on as the original does."""
        controller = make_controller(space, 8)
        _search(controller, steps=4)
        waiting = controller.propose(10) if between_propose_and_update else []
        resumed = make_controller(space, 9)
        resumed.load_state_dict(_through_a_file(controller.state_dict()))
        if waiting:
            assert controller.update(waiting, _rewards(waiting)) == resumed.update(waiting, _rewards(waiting))
        assert _search(controller, steps=3) == _search(resumed, steps=3)

    def test_saved_state_is_a_snapshot(self, make_controller: MakeController, space: SearchSpace) -> None:
        """A state taken earlier does not change while the controller goes on."""
        controller, resumed = make_controller(space, 10), make_controller(space, 10)
        _search(controller, steps=2)
        state = controller.state_dict()
        continued = _search(controller, steps=3)
        resumed.load_state_dict(state)
        assert _search(resumed, steps=3) == continued

    @pytest.mark.parametrize(
        "pattern",
        [(0.0,), (-7.5,), (1e30,), (1e30, -1e30), (1e-30, 2e-30), (0.9, 0.8, -1e9), (1.7e308, -1.7e308)],
        ids=str,
    )
    def test_survives_odd_rewards(
        self, make_controller: MakeController, space: SearchSpace, pattern: tuple[float, ...]
    ) -> None:
        """Equal, huge, tiny and wildly unequal rewards: valid new proposals go on, diagnostics stay finite."""
        controller = make_controller(space, 11)
        seen: set[Architecture] = set()
        for count in (8, 1, 6):
            proposed = controller.propose(count)
            for architecture in proposed:
                assert space.architecture(architecture.genes) == architecture
            assert len(seen | set(proposed)) == len(seen) + count
            seen |= set(proposed)
            rewards = [pattern[index % len(pattern)] for index in range(count)]
            _check_diagnostics(controller.update(proposed, rewards))

    def test_diagnostics_are_finite(self, make_controller: MakeController, space: SearchSpace) -> None:
        """An ordinary update reports finite numbers by name."""
        controller = make_controller(space, 12)
        for _ in range(3):
            proposed = controller.propose(10)
            _check_diagnostics(controller.update(proposed, _rewards(proposed)))


def _check_diagnostics(diagnostics: Diagnostics) -> None:
    for name, value in diagnostics.items():
        assert isinstance(name, str)
        assert math.isfinite(value), f"{name} = {value}"


def _rewards(architectures: Sequence[Architecture]) -> list[float]:
    # Any deterministic function of the genes in which every decision counts.
    return [sum((i + 1) * gene for i, gene in enumerate(a.genes)) / 50 for a in architectures]


def _search(controller: Controller, steps: int, count: int = 10) -> list[Architecture]:
    proposed = []
    for _ in range(steps):
        batch = controller.propose(count)
        controller.update(batch, _rewards(batch))
        proposed += batch
    return proposed


def _canonical_architectures(space: SearchSpace) -> list[Architecture]:
    return list(dict.fromkeys(space.canonical(architecture) for architecture in space))


def _through_a_file(state: StateDict) -> StateDict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: StateDict = torch.load(file, weights_only=True)
    return loaded
