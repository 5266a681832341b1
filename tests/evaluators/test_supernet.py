"""Weight sharing: training, recalibration, and scores that equal a plain re-implementation."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from nas_engine.data.base import Split
from nas_engine.errors import ConfigError, DataError
from nas_engine.evaluators.path_scoring import score_paths
from nas_engine.evaluators.supernet import SupernetEvaluator, SupernetOptions
from nas_engine.nn.supernet import recalibrated
from nas_engine.testing.evaluator_contract import assert_equal_states, measured
from nas_engine.types import Fidelity

OPTIONS = SupernetOptions(epochs=20, batch_size=32, calibration_images=96, uncalibrated_images=40)


@pytest.fixture(scope="module")
def evaluator(few_digits, space):
    trained = SupernetEvaluator(space, few_digits, OPTIONS, seed=2)
    list(trained.prepare())
    return trained


@pytest.fixture(scope="module")
def architectures(space):
    rng = np.random.default_rng(4)
    return [space.sample(rng) for _ in range(5)]


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def naive_score(supernet, genes, calibration, images, labels):
    """A copy whose BatchNorm layers are given the mean and variance of their inputs on the calibration images."""
    supernet = copy.deepcopy(supernet).train()
    for layer in norms(supernet):
        layer.register_forward_pre_hook(_keep_statistics)
    with torch.no_grad():
        supernet(calibration, genes)
        logits = supernet.eval()(images, genes)
    loss = nn.functional.cross_entropy(logits.double(), labels)
    return float((logits.argmax(1) == labels).double().mean()), float(loss)


def _keep_statistics(layer, inputs):
    if layer.training:
        values = inputs[0].transpose(0, 1).flatten(1)
        layer.running_mean.copy_(values.mean(1))
        layer.running_var.copy_(values.var(1, unbiased=True))
        layer.momentum = 0.0


def test_scores_equal_a_naive_implementation(evaluator, few_digits, architectures):
    chosen = torch.from_numpy(np.random.default_rng(2).permutation(160)[:96])
    calibration = few_digits.train.images[chosen]
    for architecture, outcome in zip(architectures, evaluator.evaluate(architectures), strict=True):
        accuracy, loss = naive_score(
            evaluator.supernet,
            architecture.genes,
            calibration,
            few_digits.validation.images,
            few_digits.validation.labels,
        )
        assert outcome.accuracy == pytest.approx(accuracy)
        assert outcome["loss"] == pytest.approx(loss, rel=1e-4)


def test_the_score_before_recalibration_is_that_of_the_shared_statistics(evaluator, few_digits, space, architectures):
    images, labels = few_digits.validation.images, few_digits.validation.labels
    options = OPTIONS.model_copy(update={"uncalibrated_images": len(labels)})
    other = SupernetEvaluator(space, few_digits, options, seed=2)
    other.load_state_dict(evaluator.state_dict())
    supernet = copy.deepcopy(other.supernet).eval()
    for architecture, outcome in zip(architectures, other.evaluate(architectures), strict=True):
        shared = (supernet(images, architecture.genes).argmax(1) == labels).double().mean()
        assert outcome["accuracy_uncalibrated"] == pytest.approx(float(shared))


def test_the_score_before_recalibration_can_be_left_out(evaluator, few_digits, space, architectures):
    options = OPTIONS.model_copy(update={"uncalibrated_images": 0})
    other = SupernetEvaluator(space, few_digits, options, seed=2)
    other.load_state_dict(evaluator.state_dict())
    assert set(other.evaluate(architectures[:1])[0].values) == {"accuracy", "loss"}


def test_recalibration_raises_the_accuracy_of_paths(evaluator, few_digits, architectures):
    outcomes = evaluator.evaluate(architectures)
    after = np.mean([outcome.accuracy for outcome in outcomes])
    before = np.mean([outcome["accuracy_uncalibrated"] for outcome in outcomes])
    assert after > before


@pytest.mark.parametrize("training", [True, False])
def test_recalibration_changes_statistics_and_restores_them(evaluator, few_digits, architectures, training):
    supernet = copy.deepcopy(evaluator.supernet).train(training)
    before = copy.deepcopy(supernet.state_dict())
    momenta = [layer.momentum for layer in norms(supernet)]
    with recalibrated(supernet, architectures[0].genes, [few_digits.train.images[:64]]):
        assert not supernet.training
        assert not torch.equal(norms(supernet)[0].running_mean, before[f"{_first_norm(supernet)}.running_mean"])
    assert supernet.training is training
    assert momenta == [layer.momentum for layer in norms(supernet)]
    assert_equal_states(supernet.state_dict(), before)


def test_statistics_are_restored_after_an_error(evaluator, few_digits, architectures):
    supernet = copy.deepcopy(evaluator.supernet)
    before = copy.deepcopy(supernet.state_dict())
    with (
        pytest.raises(ValueError, match="spoilt"),
        recalibrated(supernet, architectures[0].genes, [few_digits.train.images[:64]]),
    ):
        raise ValueError("spoilt")
    assert_equal_states(supernet.state_dict(), before)


def _first_norm(module):
    return next(name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d))


def test_equal_batches_weigh_equally_in_the_statistics(evaluator, few_digits, architectures):
    supernet, genes = copy.deepcopy(evaluator.supernet), architectures[0].genes
    batches = few_digits.train.images[:144].split(48)
    first = norms(supernet)[0]
    means = []
    for batch in batches:
        with recalibrated(supernet, genes, [batch]):
            means.append(first.running_mean.clone())
    with recalibrated(supernet, genes, batches):
        torch.testing.assert_close(first.running_mean, torch.stack(means).mean(0))


def test_scores_do_not_depend_on_the_batch_size_of_scoring(evaluator, few_digits, architectures):
    split, genes = few_digits.validation, [architecture.genes for architecture in architectures]
    calibration = [few_digits.train.images[:96]]
    loss, correct = score_paths(evaluator.supernet, genes, split.images, split.labels, calibration)
    small_loss, small_correct = score_paths(evaluator.supernet, genes, split.images, split.labels, calibration, 9)
    torch.testing.assert_close(loss, small_loss, rtol=1e-5, atol=1e-6)
    assert torch.equal(correct, small_correct)
    assert (loss.dtype, correct.dtype) == (torch.float64, torch.int64)


def test_only_validation_images_score_and_only_training_images_calibrate(evaluator, few_digits, space, architectures):
    def with_state_of_the_evaluator(dataset):
        other = SupernetEvaluator(space, dataset, OPTIONS, seed=2)
        other.load_state_dict(evaluator.state_dict())
        return measured(other.evaluate(architectures[:2]))

    lost = dataclasses.replace(few_digits.test, images=few_digits.test.images * math.nan)
    known = measured(evaluator.evaluate(architectures[:2]))
    assert with_state_of_the_evaluator(dataclasses.replace(few_digits, test=lost)) == known
    swapped = dataclasses.replace(few_digits, validation=few_digits.train)
    assert with_state_of_the_evaluator(swapped) != known


def test_training_improves_the_paths(evaluator, few_digits, space, architectures):
    fresh = SupernetEvaluator(space, few_digits, OPTIONS, seed=2)
    before = np.mean([outcome["loss"] for outcome in fresh.evaluate(architectures)])
    after = np.mean([outcome["loss"] for outcome in evaluator.evaluate(architectures)])
    assert after < 0.9 * before


def test_the_gradient_of_a_step_is_the_mean_over_its_paths(few_digits, space):
    """One fair step from given weights: the update equals the one computed path by path, by hand."""
    options = SupernetOptions(
        epochs=1,
        sampling="fair",
        batch_size=160,
        momentum=0,
        weight_decay=0,
        warmup_fraction=0,
        max_grad_norm=None,
        learning_rate=0.1,
        augmentation="none",
    )
    # In double precision the order of sums hardly matters.
    train = Split(few_digits.train.images.double(), few_digits.train.labels)
    trained = SupernetEvaluator(space, dataclasses.replace(few_digits, train=train), options, seed=0)
    by_hand = copy.deepcopy(trained.supernet.double())
    paths = []
    trained.supernet.register_forward_hook(lambda module, inputs, output: paths.append(tuple(inputs[1])))
    (progress,) = trained.prepare()
    losses = [nn.functional.cross_entropy(by_hand(train.images, path), train.labels) for path in paths]
    torch.stack(losses).mean().backward()
    assert len(paths) == 5
    assert progress.values["loss"] == pytest.approx(float(torch.stack(losses).detach().mean()))
    for one, other in zip(trained.supernet.parameters(), by_hand.parameters(), strict=True):
        expected = other if other.grad is None else other - 0.1 * other.grad
        torch.testing.assert_close(one.detach(), expected.detach())


def test_it_scores_at_its_own_fidelity_only(evaluator, architectures):
    assert evaluator.fidelity == Fidelity("supernet", seed=2)
    with pytest.raises(ConfigError, match="scores at fidelity 'supernet:epochs=0:data=1:seed=2' only"):
        evaluator.evaluate(architectures, Fidelity("training", epochs=3))


def test_slow_scoring_is_a_failure(evaluator, few_digits, space, architectures):
    options = OPTIONS.model_copy(update={"time_limit_seconds": 1e-9})
    outcomes = SupernetEvaluator(space, few_digits, options, seed=2).evaluate(architectures)
    assert {outcome.kind for outcome in outcomes} == {"timeout"}


def test_a_diverging_supernet_is_one_clear_line(few_digits, space):
    options = SupernetOptions(epochs=2, learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(ConfigError, match=r"supernet training diverged \(.*\): lower learning_rate 1e\+30"):
        list(SupernetEvaluator(space, few_digits, options).prepare())


def test_fewer_images_than_a_batch_are_refused(few_digits, space):
    with pytest.raises(DataError, match="160 training images of 'digits' do not fill one batch of 300"):
        SupernetEvaluator(space, few_digits, SupernetOptions(batch_size=300))
