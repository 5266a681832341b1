"""The native LSTM policy: what it says, its gradient and its draws are those of the PyTorch reference."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.lstm_policy import (
    Policy,
    PolicySize,
    policy_evaluate,
    policy_evaluate_reference,
    policy_gradient,
    policy_gradient_reference,
    policy_levels,
    policy_sample,
    policy_sample_reference,
    weight_count,
)
from nas_engine.spaces.diagram import DecisionDiagram, Step

pytestmark = pytest.mark.skipif(not native.available(), reason="needs the native module")


def anything(_: int, state: Hashable, __: int) -> Hashable:
    return state


def at_most_nine(_: int, total: Hashable, choice: int) -> Hashable | None:
    assert isinstance(total, int)
    return total + choice if total + choice <= 9 else None


def only_the_first_or_the_same(_: int, before: Hashable, choice: int) -> Hashable | None:
    """Decisions that are forced, and choices closed in the middle."""
    return choice if choice in (0, before) or before == 0 else None


def make_policy(size: PolicySize, step: Step = anything, seed: int = 0, scale: float = 0.5, **options: Any) -> Policy:
    weights = scale * np.random.default_rng(seed).standard_normal(weight_count(size))
    transitions = DecisionDiagram([size.choices] * size.decisions, 0, step).transitions
    return Policy(size, weights.astype(np.float32), transitions, **options)


def uniforms(policy: Policy, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, policy.size.decisions), dtype=np.float32)


CASES = [
    (PolicySize(6, 5, 16, 24), 48, {}),
    (PolicySize(6, 5, 32, 64), 16, {"temperature": 2.0, "tanh_constant": 1.5}),
    (PolicySize(6, 5, 16, 24), 37, {"step": at_most_nine}),
    (PolicySize(5, 4, 3, 10), 17, {"step": only_the_first_or_the_same, "tanh_constant": 2.5}),
    (PolicySize(1, 2, 1, 1), 1, {}),
    (PolicySize(1, 17, 3, 5), 18, {}),
    (PolicySize(3, 17, 5, 7), 33, {}),
    (PolicySize(2, 40, 9, 11), 100, {"temperature": 0.5}),
    (PolicySize(22, 7, 32, 48), 50, {"scale": 0.2}),
]


@pytest.mark.parametrize("level", policy_levels())
@pytest.mark.parametrize(("size", "n", "options"), CASES)
def test_outputs_and_gradient_are_those_of_the_reference(size, n, options, level):
    policy = make_policy(size, level=level, **options)
    genes = policy_sample_reference(policy, uniforms(policy, n))
    found, expected = policy_evaluate(policy, genes), policy_evaluate_reference(policy, genes)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.open, expected.open)
    upstream = np.random.default_rng(1).standard_normal(found.outputs.shape).astype(np.float32)
    gradient = policy_gradient(policy, found, upstream)
    reference = policy_gradient_reference(policy, expected, upstream)
    np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize("level", policy_levels())
@pytest.mark.parametrize(("size", "n", "options"), CASES)
def test_draws_are_those_of_the_reference(size, n, options, level):
    """But for numbers that fall between two roundings of the same cumulative probability."""
    policy = make_policy(size, level=level, **options)
    numbers = uniforms(policy, 2000)
    bonus = np.random.default_rng(2).random((size.decisions, size.choices), dtype=np.float32)
    for added in (None, bonus):
        found, expected = policy_sample(policy, numbers, added), policy_sample_reference(policy, numbers, added)
        assert (found != expected).any(axis=1).mean() <= 0.002


def test_extreme_numbers_draw_open_choices():
    """0 draws the first open choice, and the largest number below 1 the last, where the closed ones lie at the ends."""
    policy = make_policy(PolicySize(5, 4, 3, 10), only_the_first_or_the_same)
    numbers = np.stack([np.zeros(5), np.full(5, np.nextafter(1, 0, dtype=np.float32))]).astype(np.float32)
    for sample in (policy_sample, policy_sample_reference):
        assert sample(policy, numbers).tolist() == [[0] * 5, [3] * 5]


@settings(max_examples=60, deadline=None)
@given(
    size=st.builds(PolicySize, *[st.integers(1, most) for most in (6, 20, 12, 20)]),
    n=st.integers(0, 40),
    seed=st.integers(0, 2**31),
    tanh_constant=st.sampled_from([0.0, 1.0]),
)
def test_any_size_agrees(size, n, seed, tanh_constant):
    policy = make_policy(size, seed=seed, tanh_constant=tanh_constant)
    genes = policy_sample(policy, uniforms(policy, n, seed))
    found, expected = policy_evaluate(policy, genes), policy_evaluate_reference(policy, genes)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-4, atol=1e-5)
    upstream = np.random.default_rng(seed).standard_normal(found.outputs.shape).astype(np.float32)
    reference = policy_gradient_reference(policy, expected, upstream)
    np.testing.assert_allclose(
        policy_gradient(policy, found, upstream), reference, rtol=1e-3, atol=2e-5 * np.abs(reference).max()
    )


def test_the_result_does_not_depend_on_the_rest_of_the_batch():
    policy = make_policy(PolicySize(6, 5, 16, 24))
    genes = policy_sample(policy, uniforms(policy, 48))
    together = policy_evaluate(policy, genes).outputs
    for i in (0, 15, 16, 47):
        np.testing.assert_array_equal(policy_evaluate(policy, genes[i : i + 1]).outputs[:, 0], together[:, i])


def test_probabilities_of_all_architectures_sum_to_one():
    policy = make_policy(PolicySize(6, 5, 8, 16), scale=1.0)
    every = np.array(list(itertools.product(range(5), repeat=6)))
    log_probs = policy_evaluate(policy, every).outputs[0].sum(axis=1, dtype=np.float64)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e38])
def test_what_is_not_finite_stays_so(poison):
    """The guard of the optimiser looks for it; a kernel that hid it would let a ruined policy live on."""
    policy = make_policy(PolicySize(3, 4, 5, 6))
    genes = policy_sample(policy, uniforms(policy, 3))
    policy.weights[:] = poison
    evaluation = policy_evaluate(policy, genes)
    assert not np.isfinite(evaluation.outputs).all()
    assert not np.isfinite(policy_gradient(policy, evaluation, np.ones_like(evaluation.outputs))).all()
    for sample in (policy_sample, policy_sample_reference):
        drawn = sample(policy, uniforms(policy, 3))
        assert ((drawn >= 0) & (drawn < 4)).all()


GOOD = make_policy(PolicySize(3, 4, 5, 6), at_most_nine)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", (3, 4, 5, 6), "size must be a PolicySize"),
        ("size", PolicySize(3, 4, 5, 0), "size must be a PolicySize of integers, each at least 1"),
        ("size", PolicySize(3, 4, 5, 6.0), "size must be a PolicySize of integers"),  # type: ignore[arg-type]
        ("size", PolicySize(3, 4, 5, 7), "weights must have shape"),
        ("size", PolicySize(2**40, 4, 5, 6), "weights must have shape"),
        ("weights", GOOD.weights[:-1], "weights must have shape"),
        ("weights", GOOD.weights.astype(np.float64), "weights must have dtype float32"),
        ("weights", np.repeat(GOOD.weights, 2)[::2], "weights must be contiguous"),
        ("weights", torch.from_numpy(GOOD.weights), "weights must be a numpy array"),
        ("transitions", GOOD.transitions.astype(np.int64), "transitions must have dtype int32"),
        ("transitions", GOOD.transitions[:, :3], "transitions must have shape"),
        ("transitions", GOOD.transitions[:0], "transitions must have at least the start"),
        ("temperature", 1e-46, "temperature must be finite and above 0, got 1e-46"),
        ("temperature", 0.0, "temperature must be finite and above 0, got 0.0"),
        ("temperature", math.nan, "temperature must be finite"),
        ("temperature", "hot", "temperature must be finite"),
        ("tanh_constant", -1.0, "tanh_constant must be finite and at least 0, got -1.0"),
        ("level", "mmx", "level must be one of"),
        ("level", 3, "level must be one of"),
    ],
)
def test_a_bad_policy_is_refused(field, value, message):
    bad = dataclasses.replace(GOOD, **{field: value})
    with pytest.raises(NativeError, match=re.escape(message)):
        policy_evaluate(bad, np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(NativeError, match=re.escape(message)):
        policy_sample(bad, np.zeros((2, 3), dtype=np.float32))


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([[0, 0, 0], [0, 4, 0]], "genes[1] = [0, 4, 0] are no path of the decision diagram"),
        ([[0, 0, -1]], "genes[0] = [0, 0, -1] are no path"),
        ([[0, 2**62, 0]], "are no path"),
        ([[3, 3, 3]] * 20 + [[3, 4, 3]], "genes[20] = [3, 4, 3] are no path"),
        ([[0, 0]], "genes must have shape"),
        ([[0.0, 0.0, 0.0]], "genes must have dtype int64"),
    ],
)
def test_bad_genes_are_refused(genes, message):
    evaluations = [policy_evaluate, policy_evaluate_reference] if "no path" in message else [policy_evaluate]
    for evaluate in evaluations:
        with pytest.raises(NativeError, match=re.escape(message)):
            evaluate(GOOD, np.array(genes))


def test_a_closed_choice_is_no_path():
    policy = make_policy(PolicySize(5, 4, 3, 10), only_the_first_or_the_same)
    for evaluate in (policy_evaluate, policy_evaluate_reference):
        with pytest.raises(NativeError, match=r"genes\[1\] = \[1, 2, 0, 0, 0\] are no path"):
            evaluate(policy, np.array([[1, 1, 0, 0, 0], [1, 2, 0, 0, 0]]))


@pytest.mark.parametrize("target", [99, 2**31 - 1])
def test_a_diagram_that_leads_outside_its_states_is_refused(target):
    transitions = np.full_like(GOOD.transitions, target)
    bad = dataclasses.replace(GOOD, transitions=transitions)
    with pytest.raises(NativeError, match="no path"):
        policy_evaluate(bad, np.zeros((1, 3), dtype=np.int64))
    with pytest.raises(NativeError, match="transitions lead to a state outside"):
        policy_sample(bad, np.zeros((1, 3), dtype=np.float32))


def test_a_gradient_of_something_else_is_refused():
    genes = np.zeros((2, 3), dtype=np.int64)
    evaluation = policy_evaluate(GOOD, genes)
    upstream = np.ones_like(evaluation.outputs)
    with pytest.raises(NativeError, match="upstream must have shape"):
        policy_gradient(GOOD, evaluation, upstream[:, :1].copy())
    with pytest.raises(NativeError, match="upstream must have dtype float32"):
        policy_gradient(GOOD, evaluation, upstream.astype(np.float64))
    with pytest.raises(NativeError, match="tape must have shape"):
        policy_gradient(make_policy(PolicySize(3, 4, 5, 7)), evaluation, upstream)
    genes[1, 2] = 2**40
    with pytest.raises(NativeError, match=r"genes\[1\] = .* were changed since policy_evaluate"):
        policy_gradient(GOOD, evaluation, upstream)
    with pytest.raises(NativeError, match="bonus must have shape"):
        policy_sample(GOOD, np.zeros((2, 3), dtype=np.float32), np.zeros((4, 3), dtype=np.float32))
