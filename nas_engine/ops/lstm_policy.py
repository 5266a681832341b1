"""An LSTM that takes the decisions of an architecture in order: log-probabilities, their gradient, and draws."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.boundary import call_native, require_array

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_OP = "lstm_policy"
_SMALLEST, _LARGEST = 1e-30, 1e30
_CLOSED = -1e9  # logit of a closed choice: its probability is exactly 0 in float32, and 0 * log 0 is 0 rather than NaN


class PolicySize(NamedTuple):
    """Sizes of a policy, each at least 1; `choices` is the most of any decision."""

    decisions: int
    choices: int
    embedding: int
    hidden: int


class PolicyWeights(NamedTuple):
    """The parts of the weights, in their order; gates are in PyTorch's order: input, forget, cell, output.

    Attributes:
        decision_embedding: [decisions, embedding].
        logit_weight: [decisions, hidden, choices].
        logit_bias: [decisions, choices].
        choice_embedding: [1 + decisions * choices, embedding]; "nothing chosen yet", then each choice of each
            decision. The input at a decision is the row of the choice before it plus the decision's own embedding.
        input_weight: [4 * hidden, embedding].
        state_weight: [4 * hidden, hidden].
        input_bias: [4 * hidden].
        state_bias: [4 * hidden].
        value_weight: [1, hidden].
        value_bias: [1].
    """

    decision_embedding: Tensor
    logit_weight: Tensor
    logit_bias: Tensor
    choice_embedding: Tensor
    input_weight: Tensor
    state_weight: Tensor
    input_bias: Tensor
    state_bias: Tensor
    value_weight: Tensor
    value_bias: Tensor


@dataclass(frozen=True)
class Policy:
    """A policy and the gene sequences that are valid.

    Attributes:
        size: of the network.
        weights: float32 [weight_count(size)], one part after the other as `weight_views` finds them.
        transitions: int32 [states, choices]; the next state of a decision diagram, or -1 where a choice is closed.
            State 0 is the start.
        temperature: logits are divided by it.
        tanh_constant: then squashed to c * tanh(logit / c); 0: not squashed.
        level: one of `policy_levels`; empty: the last. Of no meaning to the references.
    """

    size: PolicySize
    weights: FloatArray
    transitions: npt.NDArray[np.int32]
    temperature: float = 1.0
    tanh_constant: float = 0.0
    level: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What `policy_evaluate` returns, with what `policy_gradient` needs to go back.

    Attributes:
        genes: int64 [n, decisions].
        outputs: float32 [3, n, decisions]: log-probability of each gene given the genes before it; entropy of each
            decision's distribution, nats; predicted return before each decision.
        open: bool [n, decisions]; whether the decision had more than one choice.
        tape: activations, an array; of the reference, tensors with their graph.
    """

    genes: IntArray
    outputs: FloatArray
    open: npt.NDArray[np.bool_]
    tape: Any


def weight_count(size: PolicySize) -> int:
    """Number of weights.

    Raises:
        NativeError: `size` is no PolicySize of integers, each at least 1.
    """
    if not isinstance(size, PolicySize) or not all(isinstance(number, int) and number >= 1 for number in size):
        raise NativeError(f"{_OP}: size must be a PolicySize of integers, each at least 1, got {size!r}")
    return _count(size)


def weight_views(size: PolicySize, weights: Tensor) -> PolicyWeights:
    """The parts of flat `weights` [weight_count(size)], as views."""
    shapes = _shapes(size)
    parts = torch.split(weights, [math.prod(shape) for shape in shapes])
    return PolicyWeights(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))


@functools.cache
def policy_levels() -> tuple[str, ...]:
    """Instruction sets whose code runs on this processor, from the slowest to the fastest; none without the module."""
    module = native.module()
    return () if module is None else tuple(module.policy_levels())


def policy_evaluate(policy: Policy, genes: IntArray) -> Evaluation:
    """What `policy` says about `genes`.

    Args:
        policy: weights and diagram.
        genes: int64 [n, decisions].

    Raises:
        NativeError: an array has the wrong type, shape or layout, or `genes` leave the diagram.
    """
    checked = _require_policy(policy)
    require_array(_OP, "genes", genes, np.int64, (None, policy.size.decisions))
    module = native.module()
    if module is None:
        return policy_evaluate_reference(policy, genes)
    handle = module.Policy(*checked)
    outputs = np.empty((3, *genes.shape), dtype=np.float32)
    is_open = np.empty(genes.shape, dtype=np.bool_)
    tape = np.empty(module.policy_tape_size(handle, len(genes)), dtype=np.float32)
    addresses = outputs.ctypes.data, is_open.ctypes.data, tape.ctypes.data
    arguments = handle, genes.ctypes.data, len(genes), *addresses
    bad = call_native(_OP, module.lstm_policy_evaluate, *arguments, shapes={"genes": genes.shape})
    if bad < len(genes):
        raise NativeError(f"{_OP}: genes[{bad}] = {genes[bad].tolist()} are no path of the decision diagram")
    return Evaluation(genes, outputs, is_open, tape)


def policy_gradient(policy: Policy, evaluation: Evaluation, upstream: FloatArray) -> FloatArray:
    """The gradient of a loss with respect to all weights, by backpropagation through time.

    Inputs are few, one for each choice, so what comes back to them is summed for each first and then goes through the
    input weights once.

    Args:
        policy: with the weights it had in `policy_evaluate`.
        evaluation: what that returned.
        upstream: the loss's gradient with respect to the outputs, float32 [3, n, decisions].

    Returns:
        float32 [weight_count(policy.size)].

    Raises:
        NativeError: an array has the wrong type, shape or layout.
    """
    module = native.module()
    if module is None or not isinstance(evaluation.tape, np.ndarray):
        return policy_gradient_reference(policy, evaluation, upstream)
    handle = module.Policy(*_require_policy(policy))
    genes, tape = evaluation.genes, evaluation.tape
    require_array(_OP, "genes", genes, np.int64, (None, policy.size.decisions))
    require_array(_OP, "tape", tape, np.float32, (module.policy_tape_size(handle, len(genes)),))
    require_array(_OP, "upstream", upstream, np.float32, (3, *genes.shape))
    gradient = np.zeros(weight_count(policy.size), dtype=np.float32)
    addresses = tape.ctypes.data, upstream.ctypes.data, gradient.ctypes.data
    arguments = handle, genes.ctypes.data, len(genes), *addresses
    bad = call_native(_OP, module.lstm_policy_gradient, *arguments, shapes={"genes": genes.shape})
    if bad < len(genes):
        raise NativeError(f"{_OP}: genes[{bad}] = {genes[bad].tolist()} were changed since policy_evaluate")
    return gradient


def policy_sample(policy: Policy, uniforms: FloatArray, bonus: FloatArray | None = None) -> IntArray:
    """Draw architectures: at each decision the first choice whose cumulative probability is above a uniform number.

    Args:
        policy: weights and diagram.
        uniforms: float32 [n, decisions] in [0, 1).
        bonus: float32 [decisions, choices], added to the logits after squashing; None: nothing.

    Returns:
        Genes int64 [n, decisions].

    Raises:
        NativeError: an array has the wrong type, shape or layout.
    """
    checked, size = _require_policy(policy), policy.size
    require_array(_OP, "uniforms", uniforms, np.float32, (None, size.decisions))
    if bonus is not None:
        require_array(_OP, "bonus", bonus, np.float32, (size.decisions, size.choices))
    module = native.module()
    if module is None:
        return policy_sample_reference(policy, uniforms, bonus)
    handle = module.Policy(*checked)
    genes = np.empty(uniforms.shape, dtype=np.int64)
    address = 0 if bonus is None else bonus.ctypes.data
    arguments = (handle, uniforms.ctypes.data, address, len(uniforms), genes.ctypes.data)
    if not call_native(_OP, module.lstm_policy_sample, *arguments, shapes={"uniforms": uniforms.shape}):
        raise NativeError(f"{_OP}: transitions lead to a state outside 0..{len(policy.transitions) - 1}")
    return genes


@torch.enable_grad()
def policy_evaluate_reference(policy: Policy, genes: IntArray) -> Evaluation:
    """The same as `policy_evaluate` in PyTorch: the oracle of its tests, and the fallback without the native module."""
    flat, rows = torch.from_numpy(policy.weights).requires_grad_(), torch.from_numpy(genes)
    weights, masks = weight_views(policy.size, flat), _masks(policy, rows)
    chosen = 1 + torch.arange(policy.size.decisions) * policy.size.choices + rows
    inputs = torch.cat([torch.zeros_like(chosen[:, :1]), chosen[:, :-1]], dim=1)
    embedded = weights.choice_embedding[inputs] + weights.decision_embedding
    zeros = embedded.new_zeros(1, len(rows), policy.size.hidden)
    hidden, _, _ = torch.lstm(embedded, (zeros, zeros), weights[4:8], True, 1, 0.0, False, False, True)
    logits = torch.einsum("ndh,dhc->ndc", hidden, weights.logit_weight) + weights.logit_bias
    log_probs = _log_softmax(policy, logits, masks)
    entropies = -(log_probs.exp() * log_probs).sum(dim=2)
    values = hidden @ weights.value_weight[0] + weights.value_bias
    outputs = torch.stack([log_probs.gather(2, rows[:, :, None])[:, :, 0], entropies, values])
    return Evaluation(genes, outputs.detach().numpy(), (masks.sum(dim=2) > 1).numpy(), (flat, outputs))


def policy_gradient_reference(policy: Policy, evaluation: Evaluation, upstream: FloatArray) -> FloatArray:
    """The same as `policy_gradient`, of what `policy_evaluate_reference` returned, by PyTorch's autograd."""
    flat, outputs = evaluation.tape
    (gradient,) = torch.autograd.grad(outputs, flat, torch.from_numpy(upstream), retain_graph=True)
    return np.asarray(gradient.numpy())


@torch.no_grad()
def policy_sample_reference(policy: Policy, uniforms: FloatArray, bonus: FloatArray | None = None) -> IntArray:
    """The same as `policy_sample` in PyTorch: the oracle of its tests, and the fallback without the native module."""
    weights, limits = weight_views(policy.size, torch.from_numpy(policy.weights)), torch.from_numpy(uniforms)
    transitions = torch.from_numpy(policy.transitions).long()
    genes = torch.empty(limits.shape, dtype=torch.int64)
    n, decisions = genes.shape
    state, inputs = torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64)
    hidden = memory = limits.new_zeros(n, policy.size.hidden)
    for decision in range(decisions):
        embedded = weights.choice_embedding[inputs] + weights.decision_embedding[decision]
        hidden, memory = torch.lstm_cell(embedded, (hidden, memory), *weights[4:8])
        logits = hidden @ weights.logit_weight[decision] + weights.logit_bias[decision]
        mask = transitions[state] >= 0
        added = None if bonus is None else torch.from_numpy(bonus[decision])
        cumulative = _log_softmax(policy, logits, mask, added).exp().cumsum(dim=1)
        last_open = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
        genes[:, decision] = torch.minimum((~(cumulative > limits[:, decision, None])).sum(dim=1), last_open)
        state = transitions[state, genes[:, decision]]
        inputs = 1 + decision * mask.shape[1] + genes[:, decision]
    return genes.numpy()


def _require_policy(policy: Policy) -> tuple[Any, ...]:
    """What the native policy is made of, once everything is checked."""
    size, transitions = policy.size, policy.transitions
    require_array(_OP, "weights", policy.weights, np.float32, (weight_count(size),))
    require_array(_OP, "transitions", transitions, np.int32, (None, size.choices))
    if not len(transitions):
        raise NativeError(f"{_OP}: transitions must have at least the start as a state, got none")
    _require_number("temperature", policy.temperature, positive=True)
    _require_number("tanh_constant", policy.tanh_constant, positive=False)
    if policy.level not in ("", *policy_levels()):
        raise NativeError(f"{_OP}: level must be one of {', '.join(policy_levels())} or '', got {policy.level!r}")
    addresses = policy.weights.ctypes.data, transitions.ctypes.data
    return (*size, len(transitions)), *addresses, policy.temperature, policy.tanh_constant, policy.level


def _require_number(name: str, value: object, *, positive: bool) -> None:
    if not isinstance(value, float | int) or not 0 <= value < _LARGEST or (positive and value < _SMALLEST):
        raise NativeError(f"{_OP}: {name} must be finite and {'above' if positive else 'at least'} 0, got {value!r}")


@functools.cache
def _count(size: PolicySize) -> int:
    return sum(math.prod(shape) for shape in _shapes(size))


@functools.cache
def _shapes(size: PolicySize) -> tuple[tuple[int, ...], ...]:
    """In the order of `PolicyWeights`."""
    decisions, choices, embedding, hidden = size
    gates = 4 * hidden
    return (
        (decisions, embedding),
        (decisions, hidden, choices),
        (decisions, choices),
        (1 + decisions * choices, embedding),
        (gates, embedding),
        (gates, hidden),
        (gates,),
        (gates,),
        (1, hidden),
        (1,),
    )


def _masks(policy: Policy, genes: Tensor) -> Tensor:
    state, masks = torch.zeros(len(genes), dtype=torch.int64), []
    transitions = torch.from_numpy(policy.transitions).long()
    for decision in range(genes.shape[1]):
        following = transitions[state]
        masks.append(following >= 0)
        gene = genes[:, decision : decision + 1]
        state = following.gather(1, gene.clamp(0, policy.size.choices - 1))[:, 0]
        left = (state < 0) | (state >= len(transitions)) | ((gene < 0) | (gene >= policy.size.choices))[:, 0]
        if left.any():
            bad = int(left.int().argmax())
            raise NativeError(f"{_OP}: genes[{bad}] = {genes[bad].tolist()} are no path of the decision diagram")
    return torch.stack(masks, dim=1)


def _log_softmax(policy: Policy, logits: Tensor, mask: Tensor, bonus: Tensor | None = None) -> Tensor:
    logits = logits / policy.temperature
    if policy.tanh_constant:
        logits = policy.tanh_constant * torch.tanh(logits / policy.tanh_constant)
    if bonus is not None:
        logits = logits + bonus
    return torch.log_softmax(logits.masked_fill(~mask, _CLOSED), dim=-1)
