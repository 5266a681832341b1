"""Stand-alone training: learns, resumes, respects fidelity, and reports what goes wrong."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from nas_engine.errors import ConfigError, DataError, SearchInterrupted
from nas_engine.evaluators.failures import guarded
from nas_engine.evaluators.training import TrainingEvaluator, TrainingOptions, TrainingRun
from nas_engine.testing.block_space import BlockSpace
from nas_engine.testing.evaluator_contract import assert_equal_states, measured, saved_and_loaded
from nas_engine.types import Fidelity, Metrics


@pytest.fixture
def architecture(space):
    return space.architecture([3, 1, 2, 4, 1, 3])


def test_the_default_recipe_learns_digits(digits, space):
    run = TrainingRun(space, digits, space.architecture([0, 0, 0, 3, 0, 0]), TrainingOptions(epochs=8))
    losses = [progress.values["loss"] for progress in run.epochs()]
    assert losses[-1] < 0.5 * losses[0]
    assert run.validate().accuracy > 0.9
    assert not run.model.training


def test_a_resumed_run_is_the_uninterrupted_one(few_digits, space, architecture):
    options = TrainingOptions(epochs=3)
    whole, first, second = (TrainingRun(space, few_digits, architecture, options, seed=4) for _ in range(3))
    done = [(p.done, p.total) for p in whole.epochs()]
    next(first.epochs())
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    assert [(p.done, p.total) for p in second.epochs()] == done[1:] == [(2, 3), (3, 3)]
    assert_equal_states(second.state_dict()["trainer"], whole.state_dict()["trainer"])
    assert second.validate().values == whole.validate().values
    assert list(second.epochs()) == []


def test_validation_and_test_are_scored_apart(few_digits, space, architecture):
    run = TrainingRun(space, few_digits, architecture, TrainingOptions(epochs=2))
    list(run.epochs())
    for split, metrics in ((few_digits.validation, run.validate()), (few_digits.test, run.test())):
        logits = run.model(split.images)
        assert metrics.accuracy == pytest.approx(float((logits.argmax(1) == split.labels).double().mean()))
        assert metrics["loss"] == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-5)


def test_evaluation_never_reads_test_images(few_digits, space, architecture):
    lost = dataclasses.replace(few_digits.test, images=few_digits.test.images * math.nan)
    options = TrainingOptions(epochs=1)
    values = [
        measured(TrainingEvaluator(space, dataset, options).evaluate([architecture]))
        for dataset in (few_digits, dataclasses.replace(few_digits, test=lost))
    ]
    assert values[0] == values[1]


def test_the_evaluator_reports_what_a_run_reports(few_digits, space, architecture):
    evaluator = TrainingEvaluator(space, few_digits, TrainingOptions(epochs=2), seed=7)
    run = TrainingRun(space, few_digits, architecture, TrainingOptions(epochs=2), seed=7)
    list(run.epochs())
    assert measured(evaluator.evaluate([architecture])) == [run.validate().values]


def test_fidelity_overrides_the_options(few_digits, space, architecture):
    evaluator = TrainingEvaluator(space, few_digits, TrainingOptions(epochs=4, data_fraction=0.5), seed=1)
    assert evaluator.fidelity == Fidelity("training", epochs=4, data_fraction=0.5, seed=1)
    wanted = Fidelity("training", epochs=1, data_fraction=1.0, seed=2)
    other = TrainingEvaluator(space, few_digits, TrainingOptions(epochs=1), seed=2)
    assert other.fidelity == wanted
    assert measured(evaluator.evaluate([architecture], wanted)) == measured(other.evaluate([architecture]))
    assert measured(evaluator.evaluate([architecture])) != measured(other.evaluate([architecture]))


@pytest.mark.parametrize("fidelity", [Fidelity("supernet"), Fidelity("training", epochs=0)])
def test_fidelities_of_others_are_refused(few_digits, space, architecture, fidelity):
    with pytest.raises(ConfigError, match="is none of training: give method='training' and epochs of at least 1"):
        TrainingEvaluator(space, few_digits).evaluate([architecture], fidelity)


def test_fewer_images_than_a_batch_are_refused_before_any_training(few_digits, space, architecture):
    with pytest.raises(DataError, match="16 training images of 'digits' do not fill one batch of 64"):
        TrainingEvaluator(space, few_digits, TrainingOptions(data_fraction=0.1, batch_size=64))
    evaluator = TrainingEvaluator(space, few_digits, TrainingOptions(batch_size=64))
    with pytest.raises(DataError, match="do not fill one batch"):
        evaluator.evaluate([architecture], Fidelity("training", epochs=1, data_fraction=0.1))


def test_a_time_limit_is_a_failure(few_digits, space, architecture):
    options = TrainingOptions(epochs=50, time_limit_seconds=0.05)
    (outcome,) = TrainingEvaluator(space, few_digits, options).evaluate([architecture])
    assert outcome.kind == "timeout"
    assert "of 50" in outcome.message
    assert outcome.seconds >= 0.05


def test_time_before_an_interruption_counts(few_digits, space, architecture):
    run = TrainingRun(space, few_digits, architecture, TrainingOptions(epochs=9, time_limit_seconds=30))
    run.load_state_dict({**run.state_dict(), "seconds": 31.0})
    with pytest.raises(TimeoutError):
        next(run.epochs())


def test_divergence_is_a_failure(few_digits, space, architecture):
    options = TrainingOptions(epochs=2, learning_rate=1e30, max_grad_norm=None)
    (outcome,) = TrainingEvaluator(space, few_digits, options).evaluate([architecture])
    assert outcome.kind == "nan"
    assert "loss became" in outcome.message


def test_a_space_that_cannot_build_is_a_failure_with_traceback(few_digits):
    class Unbuildable(BlockSpace):
        def build(self, architecture):
            raise ValueError(f"no network\nfor {architecture.key}")

    space = Unbuildable(few_digits.shape)
    (outcome,) = TrainingEvaluator(space, few_digits).evaluate([space.architecture([0] * 6)])
    assert (outcome.kind, outcome.message) == ("error", "no network for blocks:0-0-0-0-0-0")
    assert "ValueError" in outcome.traceback
    assert "in build" in outcome.traceback


def test_a_real_allocation_failure_is_out_of_memory():
    outcome = guarded(lambda: torch.empty(2**60, dtype=torch.uint8))
    assert outcome.kind == "oom"


def test_guarded_lets_results_and_interruptions_through():
    assert guarded(lambda: Metrics({"accuracy": 1.0})) == Metrics({"accuracy": 1.0})
    with pytest.raises(SearchInterrupted):
        guarded(lambda: (_ for _ in ()).throw(SearchInterrupted("stopped")))
