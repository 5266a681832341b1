"""What the search hands on: the best trials, prices, and what is paid for."""

from __future__ import annotations

import numpy as np
import pytest

from nas_engine.costs.analytic import AnalyticCost
from nas_engine.limits import Constraint
from nas_engine.search_loop import best_trials, price
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.types import Architecture, Failure, FailureKind, Fidelity, ImageShape, Metrics, Outcome, Trial


def trial(number: int, reward: float, outcome: Outcome, genes: tuple[int, ...] | None = None) -> Trial:
    return Trial(
        number=number,
        architecture=Architecture("nasbench201", genes or (number, 0)),
        fidelity=Fidelity("supernet"),
        outcome=outcome,
        reward=reward,
        proposed_by="ppo",
        step=0,
        phase="search",
        cached=False,
        started_at=0.0,
        finished_at=1.0,
    )


def scored(accuracy: float, loss: float = 0.1, macs: float = 1e6) -> Metrics:
    return Metrics({"accuracy": accuracy, "loss": loss, "macs": macs})


def test_equal_rewards_are_ordered_by_loss_then_macs() -> None:
    trials = [
        trial(0, 0.9, scored(0.9, loss=0.3, macs=1e5)),
        trial(1, 0.9, scored(0.9, loss=0.2, macs=3e5)),
        trial(2, 0.9, scored(0.9, loss=0.2, macs=2e5)),
        trial(3, 0.95, scored(0.95, loss=0.5)),
    ]
    assert [t.number for t in best_trials(trials, (), 4)] == [3, 2, 1, 0]


def test_only_what_meets_the_constraints_is_handed_on_and_each_once() -> None:
    limits = (Constraint.parse("macs <= 1e6"), Constraint.parse("accuracy >= 0.8"))
    trials = [
        trial(0, 0.99, scored(0.99, macs=2e6)),
        trial(1, 0.7, scored(0.7)),
        trial(2, 0.9, scored(0.9), genes=(5, 5)),
        trial(3, 0.9, scored(0.9), genes=(5, 5)),
        trial(4, 0.0, Failure(FailureKind.NAN, "diverged")),
        trial(5, 0.85, scored(0.85)),
    ]
    assert [t.number for t in best_trials(trials, limits, 10)] == [2, 5]


def test_prices_come_from_all_models_by_name() -> None:
    space = NASBench201Space(ImageShape(1, 8, 8, 10))
    rng = np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(3)]
    rows = price([AnalyticCost(space)], architectures)
    for architecture, row in zip(architectures, rows, strict=True):
        assert row["params"] == sum(p.numel() for p in space.build(architecture).parameters())
        assert row["peak_activation_bytes"] == pytest.approx(space.peak_activation_bytes(architecture))
