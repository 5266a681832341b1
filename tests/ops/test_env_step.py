"""env_step: native against the NumPy reference on random diagrams, field by field, and inputs that must be refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.env_step import (
    Autoreset,
    EnvBuffers,
    env_reset,
    env_reset_reference,
    env_step,
    env_step_reference,
)
from nas_engine.spaces.diagram import DecisionDiagram

needs_native = pytest.mark.skipif(not native.available(), reason=native.problem())
FIELDS = [
    field.name for field in dataclasses.fields(EnvBuffers) if field.name not in ("transitions", "offsets", "native")
]


def increasing(choices: list[int]) -> DecisionDiagram:
    """Genes may not decrease (clipped to what each decision offers): a rule with closed choices."""
    return DecisionDiagram(choices, 0, lambda _, state, choice: choice if choice >= int(state) else None)


def at_most(total: int, choices: list[int]) -> DecisionDiagram:
    """Genes may sum to `total` at most."""
    return DecisionDiagram(choices, 0, lambda _, used, choice: used + choice if used + choice <= total else None)


@st.composite
def diagrams(draw: st.DrawFn) -> DecisionDiagram:
    choices = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    if draw(st.booleans()):
        return at_most(draw(st.integers(0, 6)), choices)
    return increasing(sorted(choices))


def buffers_of(diagram: DecisionDiagram, num_envs: int) -> EnvBuffers:
    return EnvBuffers.allocate(num_envs, diagram.transitions, diagram.choices)


@needs_native
@settings(deadline=None, max_examples=80)
@given(diagrams(), st.integers(1, 5), st.sampled_from(Autoreset), st.integers(0, 2**32 - 1))
def test_native_equals_reference(diagram: DecisionDiagram, num_envs: int, autoreset: Autoreset, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = buffers_of(diagram, num_envs), buffers_of(diagram, num_envs)
    for _ in range(25):
        actions = rng.integers(0, max(diagram.choices), num_envs)  # masked ones among them
        env_step(one, actions, autoreset)
        env_step_reference(other, actions, autoreset)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        which = one.terminated.copy() if autoreset is Autoreset.DISABLED else rng.random(num_envs) < 0.1
        env_reset(one, which)
        env_reset_reference(other, which)


@pytest.mark.parametrize("step", [env_step, env_step_reference])
def test_an_episode_by_hand(step: Any) -> None:
    buffers = buffers_of(at_most(2, [2, 3]), 1)
    assert buffers.observations.tolist() == [[1, 0, 0, 0, 0, 0, 0]]
    assert buffers.masks.tolist() == [[True, True, False]]
    step(buffers, np.array([1]))
    assert buffers.observations.tolist() == [[0, 1, 0, 1, 0, 0, 0]]
    assert buffers.masks.tolist() == [[True, True, False]]  # 1 + 2 would be too much
    assert buffers.terminated.tolist() == [False]
    step(buffers, np.array([0]))
    assert buffers.observations.tolist() == [[0, 0, 0, 1, 1, 0, 0]]
    assert buffers.genes.tolist() == [[1, 0]]
    assert buffers.terminated.tolist() == [True]
    assert not buffers.masks.any()
    step(buffers, np.array([99]))  # ignored: the environment starts again
    assert buffers.genes.tolist() == [[-1, -1]]
    assert buffers.terminated.tolist() == [False]


@pytest.mark.parametrize("step", [env_step, env_step_reference])
def test_a_masked_action_ends_the_episode_and_keeps_what_was_chosen(step: Any) -> None:
    buffers = buffers_of(at_most(2, [2, 3]), 1)
    step(buffers, np.array([1]))
    step(buffers, np.array([2]))
    assert (buffers.terminated.tolist(), buffers.invalid.tolist()) == ([True], [True])
    assert buffers.genes.tolist() == [[1, -1]]
    assert not buffers.masks.any()


@pytest.mark.parametrize("step", [env_step, env_step_reference])
def test_same_step_keeps_the_finished_episode(step: Any) -> None:
    buffers = buffers_of(at_most(2, [2, 3]), 1)
    step(buffers, np.array([0]), Autoreset.SAME_STEP)
    step(buffers, np.array([2]), Autoreset.SAME_STEP)
    assert buffers.terminated.tolist() == [True]
    assert buffers.final_genes.tolist() == [[0, 2]]
    assert buffers.final_observations.tolist() == [[0, 0, 1, 0, 0, 0, 1]]
    assert buffers.observations.tolist() == [[1, 0, 0, 0, 0, 0, 0]]
    assert buffers.genes.tolist() == [[-1, -1]]


@settings(deadline=None, max_examples=60)
@given(diagrams(), st.integers(0, 2**32 - 1))
def test_masked_walks_give_exactly_the_valid_architectures(diagram: DecisionDiagram, seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers = buffers_of(diagram, 4)
    for _ in diagram.choices:
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in buffers.masks])
        env_step(buffers, actions)
    assert buffers.terminated.all()
    assert not buffers.invalid.any()
    assert all(diagram.contains(genes) for genes in buffers.genes.tolist())


@pytest.mark.parametrize("use_native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ([0, 0], "actions must be a numpy array, got list"),
        (np.zeros(2, dtype=np.int32), "actions must have dtype int64, got int32"),
        (np.zeros(3, dtype=np.int64), r"actions must have shape \[2\], got \[3\]"),
        (np.zeros((2, 1), dtype=np.int64), r"actions must have shape \[2\]"),
        (np.zeros(4, dtype=np.int64)[::2], "actions must be contiguous"),
        (np.array([0, 3]), r"actions\[1\] = 3 is outside 0..2"),
        (np.array([-1, 0]), r"actions\[0\] = -1 is outside 0..2"),
        (np.array([0, -(2**63)]), r"actions\[1\] = -9223372036854775808 is outside 0..2"),
    ],
)
def test_bad_actions_are_named_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch, use_native: bool, actions: Any, says: str
) -> None:
    if not use_native:
        monkeypatch.setattr(native, "module", lambda: None)
    buffers = buffers_of(at_most(2, [2, 3]), 2)
    assert (buffers.native is not None) == use_native
    before = {name: getattr(buffers, name).copy() for name in FIELDS}
    with pytest.raises(NativeError, match=f"^env_step: {says}"):
        env_step(buffers, actions)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(buffers, name), before[name], err_msg=name)


@pytest.mark.parametrize("step", [env_step, env_step_reference])
@pytest.mark.parametrize("autoreset", [0, 7, "SAME_STEP", None])
def test_other_autoresets_are_named_and_change_nothing(step: Any, autoreset: Any) -> None:
    buffers = buffers_of(at_most(2, [2, 3]), 2)
    with pytest.raises(NativeError, match=rf"autoreset must be one of Autoreset.NEXT_STEP, .*, got {autoreset!r}"):
        step(buffers, np.array([0, 0]), autoreset)
    assert buffers.genes.tolist() == [[-1, -1], [-1, -1]]


def test_the_diagram_of_buffers_cannot_change() -> None:
    """What it leads to is read without a further check."""
    transitions = at_most(2, [2, 3]).transitions.copy()
    buffers = EnvBuffers.allocate(1, transitions, [2, 3])
    transitions[:] = 2**30
    env_step(buffers, np.array([1]))
    assert buffers.masks.tolist() == [[True, True, False]]
    for name in ("transitions", "offsets"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(buffers, name)[...] = 0


def test_disabled_autoreset_refuses_an_ended_episode() -> None:
    buffers = buffers_of(at_most(1, [2]), 2)
    env_step(buffers, np.array([0, 1]), Autoreset.DISABLED)
    with pytest.raises(NativeError, match="the episode of environment 0 is over; call env_reset"):
        env_step(buffers, np.array([0, 1]), Autoreset.DISABLED)
    env_reset(buffers, np.array([True, True]))
    env_step(buffers, np.array([0, 1]), Autoreset.DISABLED)
    assert buffers.genes.tolist() == [[0], [1]]


@pytest.mark.parametrize(("name", "value"), [("states", 10**9), ("states", -1), ("positions", 2), ("positions", -7)])
def test_an_overwritten_buffer_is_refused(name: str, value: int) -> None:
    buffers = buffers_of(at_most(2, [2, 3]), 2)
    getattr(buffers, name)[1] = value
    with pytest.raises(NativeError, match=rf"{name}\[1\] = {value} is outside"):
        env_step(buffers, np.array([0, 0]))


def _changed(name: str, value: Any) -> EnvBuffers:
    sound = EnvBuffers.allocate(2, at_most(2, [2, 3]).transitions, [2, 3])
    fields = {field.name: getattr(sound, field.name) for field in dataclasses.fields(sound) if field.init}
    return EnvBuffers(**{**fields, name: value})


@pytest.mark.parametrize("name", [*FIELDS, "transitions", "offsets"])
def test_wrong_buffers_are_named(name: str) -> None:
    sound = getattr(_changed("states", np.zeros(2, dtype=np.int64)), name)
    bad = [
        sound.astype(np.complex128),
        sound[..., None].copy(),
        np.concatenate([sound, sound], axis=-1)[..., ::2],
        sound.tolist(),
    ]
    for value in bad:
        with pytest.raises(NativeError, match=f"^env_step: {name} "):
            _changed(name, value)


def test_read_only_buffers_are_refused() -> None:
    frozen = np.zeros(2, dtype=np.bool_)
    frozen.flags.writeable = False
    with pytest.raises(NativeError, match="terminated must be writable"):
        _changed("terminated", frozen)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("transitions", np.full((3, 3), 3, dtype=np.int32), r"transitions \+ 1\[0, 0\] = 4 is outside"),
        ("transitions", np.full((3, 3), -2, dtype=np.int32), "is outside"),
        ("transitions", np.full((3, 4), -1, dtype=np.int32), "offsets"),
        ("offsets", np.array([2]), "offsets"),
        ("offsets", np.array([3, 4, 7]), "offsets"),
        ("offsets", np.array([2, 2, 5]), "offsets"),
    ],
)
def test_unsound_diagrams_are_refused(name: str, value: Any, says: str) -> None:
    with pytest.raises(NativeError, match=says):
        _changed(name, value)


@pytest.mark.parametrize("step", [env_step, env_step_reference])
def test_a_transition_beyond_the_choices_of_a_decision_counts_as_closed(step: Any) -> None:
    # Choice 2 of the first decision would write into the second one's part of the observation.
    transitions = np.full((3, 3), 1, dtype=np.int32)
    buffers = EnvBuffers.allocate(1, transitions, [2, 3])
    step(buffers, np.array([2]))
    assert buffers.invalid.tolist() == [True]
    assert buffers.observations.tolist() == [[1, 0, 0, 0, 0, 0, 0]]
