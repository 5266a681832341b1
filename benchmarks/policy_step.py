"""Training steps and draws of the LSTM policy, native and PyTorch: python policy_step.py [--quick] [--out FILE.json].

A step is the evaluation of a batch of architectures and the gradient of a loss of what came out; one thread for all.
Counted FLOPs are two for each multiply-accumulate of the LSTM and the output layers, three times for the way back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from record import Row, arguments, interleaved_seconds, make_row, median_of, rate_rows, report_goal, write_rows

from nas_engine.ops.lstm_policy import (
    Policy,
    PolicySize,
    policy_evaluate,
    policy_evaluate_reference,
    policy_gradient,
    policy_gradient_reference,
    policy_sample,
    policy_sample_reference,
    weight_count,
    weight_views,
)
from nas_engine.spaces.diagram import DecisionDiagram

CASES = {  # sizes of the policy, architectures in a step
    "nasbench201, few evaluations (hidden 24)": (PolicySize(6, 5, 16, 24), 48),
    "nasbench201, default (hidden 64)": (PolicySize(6, 5, 32, 64), 16),
    "mobilenet, default (hidden 64)": (PolicySize(22, 7, 32, 64), 16),
}
DRAWS = 64
GOAL = 5.0  # times as fast as the best of PyTorch


def make_policy(size: PolicySize) -> Policy:
    """Random weights; every choice is open."""
    weights = 0.2 * np.random.default_rng(0).standard_normal(weight_count(size)).astype(np.float32)
    transitions = DecisionDiagram([size.choices] * size.decisions, 0, lambda position, state, choice: 0).transitions
    return Policy(size, weights, transitions)


def native_step(policy: Policy, genes: np.ndarray, upstream: np.ndarray) -> None:
    """Evaluation and gradient by the native op."""
    policy_gradient(policy, policy_evaluate(policy, genes), upstream)


def reference_step(policy: Policy, genes: np.ndarray, upstream: np.ndarray) -> None:
    """The same by torch.lstm and autograd."""
    policy_gradient_reference(policy, policy_evaluate_reference(policy, genes), upstream)


def unrolled_outputs(size: PolicySize, flat: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
    """Log-probabilities, entropies and values of an unmasked policy, decision by decision, for torch.compile."""
    weights = weight_views(size, flat)
    hidden = memory = flat.new_zeros(len(genes), size.hidden)
    outputs = []
    inputs = torch.zeros_like(genes[:, 0])
    for decision in range(size.decisions):
        embedded = weights.choice_embedding[inputs] + weights.decision_embedding[decision]
        gates = embedded @ weights.input_weight.T + hidden @ weights.state_weight.T
        gates = gates + weights.input_bias + weights.state_bias
        entry, forget, candidate, output = gates.chunk(4, dim=1)
        memory = torch.sigmoid(forget) * memory + torch.sigmoid(entry) * torch.tanh(candidate)
        hidden = torch.sigmoid(output) * torch.tanh(memory)
        logits = hidden @ weights.logit_weight[decision] + weights.logit_bias[decision]
        log_probs = torch.log_softmax(logits, dim=1)
        chosen = log_probs.gather(1, genes[:, decision, None])[:, 0]
        entropy = -(log_probs.exp() * log_probs).sum(dim=1)
        outputs.append(torch.stack([chosen, entropy, hidden @ weights.value_weight[0] + weights.value_bias]))
        inputs = 1 + decision * size.choices + genes[:, decision]
    return torch.stack(outputs, dim=2)


def compiled_step(policy: Policy, genes: np.ndarray, upstream: np.ndarray) -> Callable[[], object]:
    """The same by torch.compile, checked against the native op."""
    flat, rows = torch.from_numpy(policy.weights.copy()).requires_grad_(), torch.from_numpy(genes)
    outputs_of = torch.compile(partial(unrolled_outputs, policy.size), dynamic=False)

    def run() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(outputs_of(flat, rows), flat, torch.from_numpy(upstream))
        return gradient

    expected = policy_gradient(policy, policy_evaluate(policy, genes), upstream)
    np.testing.assert_allclose(run().numpy(), expected, rtol=1e-3, atol=1e-4)
    return run


def flops(size: PolicySize, samples: int) -> float:
    """Of a step by the direct algorithm."""
    cell = 4 * size.hidden * (size.embedding + size.hidden)
    return 6.0 * samples * size.decisions * (cell + size.hidden * (size.choices + 1))


def rows_of(case: str, repeats: int, *, with_compile: bool) -> list[Row]:
    """Steps and draws a second of every variant."""
    size, samples = CASES[case]
    policy = make_policy(size)
    uniforms = np.random.default_rng(1).random((DRAWS, size.decisions), dtype=np.float32)
    genes = policy_sample(policy, uniforms)[:samples].copy()
    upstream = np.random.default_rng(2).standard_normal((3, *genes.shape)).astype(np.float32)
    steps: dict[str, Callable[[], object]] = {
        "native": partial(native_step, policy, genes, upstream),
        "PyTorch, torch.lstm and autograd": partial(reference_step, policy, genes, upstream),
    }
    if with_compile:
        steps["PyTorch, torch.compile"] = compiled_step(policy, genes, upstream)
    rows = rate_rows(f"step: {case}", interleaved_seconds(steps, repeats), 1, "steps/s")
    draws: dict[str, Callable[[], object]] = {
        "native": partial(policy_sample, policy, uniforms),
        "PyTorch, torch.lstm_cell": partial(policy_sample_reference, policy, uniforms),
    }
    rows += rate_rows(f"draws: {case}", interleaved_seconds(draws, repeats), DRAWS, "architectures/s")
    rate = median_of(rows, f"step: {case}", "native") * flops(size, samples) / 1e9
    rows.append(make_row(f"step: {case}", "native", "counted", rate, "GFLOP/s"))
    return rows


def gemm_row(repeats: int) -> Row:
    """What one thread reaches in a large product."""
    size = 512
    matrix = torch.randn(size, size)
    [seconds] = interleaved_seconds({"gemm": lambda: matrix @ matrix}, repeats).values()
    peak = 2 * size**3 / min(seconds) / 1e9
    return make_row("this machine, one thread", "GEMM 512", "peak", peak, "GFLOP/s")


def main() -> None:
    """Time all variants, in turn."""
    options = arguments(__doc__ or "").parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    repeats = 50 if options.quick else 400
    rows = [gemm_row(20)]
    for case in CASES:
        rows += rows_of(case, repeats, with_compile=not options.quick)
    write_rows(rows, options.out)
    for case in CASES:
        for kind in ("step", "draws"):
            name = f"{kind}: {case}"
            others = {row["variant"] for row in rows if row["case"] == name} - {"native"}
            best = max(median_of(rows, name, variant) for variant in others)
            report_goal(f"{name}, against the best of PyTorch", median_of(rows, name, "native") / best, GOAL, "x")


if __name__ == "__main__":
    main()
