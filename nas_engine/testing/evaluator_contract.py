"""The promises of every evaluator as tests that a plugin author inherits."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas_engine.evaluators.base import Evaluator
from nas_engine.spaces.base import SearchSpace
from nas_engine.testing.faulty_space import Fault, FaultySpace
from nas_engine.types import Architecture, Failure, FailureKind, Metrics, Outcome, StateDict

MakeEvaluator = Callable[[SearchSpace], Evaluator]
"""A fresh evaluator of a space; called twice with one space it gives two equal ones."""


class EvaluatorContract:
    """Inherit, and define the fixtures `space` and `make_evaluator`.

    Example:
        >>> class TestMyEvaluator(EvaluatorContract):
        ...     @pytest.fixture()
        ...     def space(self):
        ...         return BlockSpace()
        ...
        ...     @pytest.fixture()
        ...     def make_evaluator(self):
        ...         return lambda space: MyEvaluator(space, dataset, MyOptions(epochs=2), seed=3)
    """

    @pytest.fixture
    def architectures(self, space: SearchSpace) -> list[Architecture]:
        """Three different architectures; override where these cannot be evaluated."""
        rng = np.random.default_rng(0)
        found = dict.fromkeys(space.sample(rng) for _ in range(100))
        return list(islice(found, 3))

    @pytest.fixture
    def prepared(self, space: SearchSpace, make_evaluator: MakeEvaluator) -> Evaluator:
        """An evaluator whose `prepare` has ended."""
        return _prepared(make_evaluator(space))

    def test_one_outcome_for_each_architecture_in_order(
        self, prepared: Evaluator, architectures: list[Architecture]
    ) -> None:
        """Each architecture gets the outcome it gets alone, wherever it stands in the list."""
        together = measured(prepared.evaluate(architectures))
        backwards = measured(prepared.evaluate(architectures[::-1]))
        alone = [measured(prepared.evaluate([architecture]))[0] for architecture in architectures]
        assert together == backwards[::-1] == alone

    def test_outcomes_are_metrics_with_finite_values(
        self, prepared: Evaluator, architectures: list[Architecture]
    ) -> None:
        """Sound architectures get metrics: an accuracy within [0, 1], all values finite, the time it took."""
        for outcome in prepared.evaluate(architectures):
            assert isinstance(outcome, Metrics)
            assert 0 <= outcome.accuracy <= 1
            assert all(map(math.isfinite, outcome.values.values()))
            assert outcome.seconds >= 0

    def test_evaluate_is_pure(self, prepared: Evaluator, architectures: list[Architecture]) -> None:
        """Evaluating changes neither the state nor later outcomes, and the default fidelity is `fidelity`."""
        before = saved_and_loaded(prepared.state_dict())
        first = measured(prepared.evaluate(architectures))
        assert_equal_states(prepared.state_dict(), before)
        assert measured(prepared.evaluate(architectures, prepared.fidelity)) == first

    def test_nothing_to_evaluate(self, prepared: Evaluator) -> None:
        """No architectures, no outcomes."""
        assert prepared.evaluate([]) == []

    def test_global_random_state_is_left_alone(
        self, space: SearchSpace, make_evaluator: MakeEvaluator, architectures: list[Architecture]
    ) -> None:
        """Randomness is the evaluator's own: it neither reads nor moves torch's or NumPy's global generators."""
        outcomes = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
            outcomes.append(measured(_prepared(make_evaluator(space)).evaluate(architectures)))
            assert torch.equal(torch.get_rng_state(), before[0])
            assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index] # noqa: NPY002
        assert outcomes[0] == outcomes[1]

    def test_interrupted_preparation_ends_in_the_same_state(
        self, space: SearchSpace, make_evaluator: MakeEvaluator, architectures: list[Architecture]
    ) -> None:
        """Saved after each unit, loaded into a fresh evaluator and continued: equal bit for bit."""
        whole = make_evaluator(space)
        units = [(progress.done, progress.total) for progress in whole.prepare()]
        broken, seen = make_evaluator(space), []
        for _ in units:
            seen += [(progress.done, progress.total) for progress in islice(broken.prepare(), 1)]
            state = saved_and_loaded(broken.state_dict())
            broken = make_evaluator(space)
            broken.load_state_dict(state)
        assert seen == units
        assert_equal_states(broken.state_dict(), whole.state_dict())
        assert measured(broken.evaluate(architectures)) == measured(whole.evaluate(architectures))

    def test_prepare_reports_units_up_to_the_total(self, space: SearchSpace, make_evaluator: MakeEvaluator) -> None:
        """Units are counted 1, 2, ... total; afterwards nothing is left to prepare."""
        evaluator = make_evaluator(space)
        units = list(evaluator.prepare())
        assert [unit.done for unit in units] == list(range(1, len(units) + 1))
        assert {unit.total for unit in units} <= {len(units)}
        assert list(evaluator.prepare()) == []


class NetworkFaultContract:
    """Inherit this as well where the evaluator runs networks or supernets of the space."""

    @pytest.mark.parametrize(
        ("kind", "fault"),
        [
            (FailureKind.NAN, lambda logits: logits * math.nan),
            (FailureKind.ERROR, lambda logits: logits[:, 10_000]),
            (FailureKind.OOM, lambda logits: _raise(MemoryError())),
            (FailureKind.OOM, lambda logits: _raise(RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"))),
            (FailureKind.TIMEOUT, lambda logits: _raise(TimeoutError("too slow"))),
        ],
        ids=["nan", "error", "memory-error", "torch-out-of-memory", "timeout"],
    )
    def test_a_broken_architecture_is_a_failure(
        self,
        space: SearchSpace,
        make_evaluator: MakeEvaluator,
        architectures: list[Architecture],
        kind: FailureKind,
        fault: Fault,
    ) -> None:
        """What breaks in one evaluation is recorded there, by kind, and harms no other."""
        broken = architectures[1]
        outcomes = _prepared(make_evaluator(FaultySpace(space, broken, fault))).evaluate(architectures)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        assert [type(outcome) is Failure for outcome in outcomes] == [one == broken for one in architectures]
        assert [(failure.kind, bool(failure.message)) for failure in failures] == [(kind, True)]
        sound = _prepared(make_evaluator(space)).evaluate([architectures[0], architectures[-1]])
        # Not equal: a wrapped network may be computed another way than the known one inside.
        for got, wanted in zip(measured([outcomes[0], outcomes[-1]]), measured(sound), strict=True):
            assert got == pytest.approx(wanted, rel=1e-4)

    def test_keyboard_interrupt_passes(
        self, space: SearchSpace, make_evaluator: MakeEvaluator, architectures: list[Architecture]
    ) -> None:
        """The user's wish to stop is not a failure of an architecture."""
        faulty = FaultySpace(space, architectures[0], lambda logits: _raise(KeyboardInterrupt()))
        evaluator = _prepared(make_evaluator(faulty))
        with pytest.raises(KeyboardInterrupt):
            evaluator.evaluate(architectures)


def measured(outcomes: Sequence[Outcome]) -> list[dict[str, float]]:
    """The values of outcomes, without the seconds that differ from call to call."""
    return [dict(outcome.values) for outcome in outcomes]


def saved_and_loaded(state: StateDict) -> StateDict:
    """`state` after a round trip through a file that is read with ``weights_only=True``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: StateDict = torch.load(buffer, weights_only=True)
    return loaded


def assert_equal_states(one: Any, other: Any) -> None:
    """Fail unless two states hold the same structure and the same bits."""
    assert type(one) is type(other) or isinstance(one, dict)
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_states(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal_states(first, second)
    else:
        assert one == other


def _prepared(evaluator: Evaluator) -> Evaluator:
    for _ in evaluator.prepare():
        pass
    return evaluator


def _raise(error: BaseException) -> Tensor:
    raise error
