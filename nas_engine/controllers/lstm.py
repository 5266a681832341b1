"""The policy network: one LSTM that takes the decisions of an architecture in order, each under its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas_engine.ops.lstm_policy import (
    Evaluation,
    Policy,
    PolicySize,
    PolicyWeights,
    policy_evaluate,
    policy_gradient,
    policy_sample,
    weight_count,
    weight_views,
)
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.types import StateDict

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rollout:
    """Gene sequences and what the policy says about them.

    Attributes:
        genes: int64 [n, decisions].
        log_probs: log-probability of each gene given the genes before it, [n, decisions].
        entropies: entropy of each decision's distribution in nats, [n, decisions].
        values: predicted return before each decision, [n, decisions].
        open: bool [n, decisions]; whether the decision had more than one choice. Where it had not, log-probability
            and entropy are 0.
    """

    genes: IntArray
    log_probs: FloatArray
    entropies: FloatArray
    values: FloatArray
    open: npt.NDArray[np.bool_]

    def __getitem__(self, chosen: slice | IntArray) -> Rollout:
        """The sequences at the positions `chosen`."""
        return Rollout(
            self.genes[chosen], self.log_probs[chosen], self.entropies[chosen], self.values[chosen], self.open[chosen]
        )

    @property
    def open_count(self) -> int:
        """Number of decisions that had more than one choice; at least 1, to divide by."""
        return max(int(np.count_nonzero(self.open)), 1)

    @property
    def mean_entropy(self) -> float:
        """Nats a decision, over the decisions that had more than one choice."""
        return float(self.entropies.sum()) / self.open_count


class LSTMPolicy:
    """Autoregressive policy over the decisions of a space (Zoph & Le 2017, section 3.1; Pham et al. 2018).

    The input at decision t is the embedding of the gene chosen at t - 1 plus an embedding of decision t; the output
    layers are the decision's own. Choices that no valid architecture continues with have probability exactly 0.
    The output layers start small (orthogonal, gain 0.01): the first distributions are uniform over the open choices
    to within about 1 %.

    Attributes:
        vector: all weights, float32 [weights].
    """

    def __init__(
        self,
        diagram: DecisionDiagram,
        embedding_size: int = 32,
        hidden_size: int = 64,
        temperature: float = 1.0,
        tanh_constant: float = 0.0,
    ) -> None:
        """Build the network; weights come from torch's global generator.

        Args:
            diagram: the valid gene sequences.
            embedding_size: size of the input embeddings.
            hidden_size: size of the LSTM state.
            temperature: logits are divided by it.
            tanh_constant: logits are squashed to (-c, c) by c * tanh(logits / c) as in Bello et al. 2017, "Neural
                optimizer search", section 4.1, which bounds how certain the policy can become; 0 for no bound.
        """
        self._size = PolicySize(len(diagram.choices), diagram.transitions.shape[1], embedding_size, hidden_size)
        self._transitions = np.ascontiguousarray(diagram.transitions)
        self._temperature, self._tanh_constant = temperature, tanh_constant
        self.vector = np.zeros(weight_count(self._size), dtype=np.float32)
        self._draw_weights(hidden_size)

    def sample(self, n: int, generator: torch.Generator, bonus: FloatArray | None = None) -> IntArray:
        """Genes int64 [n, decisions] of `n` valid architectures, drawn in step with `generator`.

        Args:
            n: how many.
            generator: of the draws.
            bonus: float32, added to the logits of all draws, [decisions, choices]; None: nothing.
        """
        uniforms = torch.rand(n, self._size.decisions, generator=generator).numpy()
        return policy_sample(self._policy, uniforms, bonus)

    def evaluate(self, genes: IntArray) -> Rollout:
        """What the policy says about `genes` (int64 [n, decisions], valid)."""
        return self.follow(genes)[0]

    def follow(self, genes: IntArray) -> tuple[Rollout, Evaluation]:
        """The same as `evaluate`, and what `gradient` needs to go back."""
        evaluation = policy_evaluate(self._policy, genes)
        log_probs, entropies, values = evaluation.outputs
        return Rollout(genes, log_probs, entropies, values, evaluation.open), evaluation

    def gradient(self, evaluation: Evaluation, upstream: FloatArray) -> FloatArray:
        """The gradient of a loss with respect to `vector`.

        Args:
            evaluation: of `follow`, with the weights as they are now.
            upstream: the loss's gradient with respect to log-probabilities, entropies and values, float32
                [3, n, decisions].
        """
        return policy_gradient(self._policy, evaluation, upstream)

    def scale_logits(self, factor: float) -> None:
        """Multiply all logits, before temperature and squashing, by `factor`; below 1 it raises the entropy."""
        self.weights.logit_weight.mul_(factor)
        self.weights.logit_bias.mul_(factor)

    def state_dict(self) -> StateDict:
        """A copy of the weights, by their names."""
        return {name: weight.clone() for name, weight in self.weights._asdict().items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`.

        Raises:
            ValueError: a weight has another shape than here, as of another space or hidden size; nothing is changed.
        """
        weights = self.weights._asdict()
        for name, weight in weights.items():
            if state[name].shape != weight.shape:
                raise ValueError(f"{name} of the state is {list(state[name].shape)}, expected {list(weight.shape)}")
        for name, weight in weights.items():
            weight.copy_(state[name])

    @property
    def weights(self) -> PolicyWeights:
        """The weights by their names: tensors that share the memory of `vector`."""
        return weight_views(self._size, torch.from_numpy(self.vector))

    @property
    def _policy(self) -> Policy:
        return Policy(self._size, self.vector, self._transitions, self._temperature, self._tanh_constant)

    def _draw_weights(self, hidden_size: int) -> None:
        """As PyTorch's modules start (embeddings normal, LSTM uniform), but for the output layers."""
        weights, bound = self.weights, hidden_size**-0.5
        weights.choice_embedding.normal_()
        weights.decision_embedding.normal_(std=0.1)
        for weight in (weights.input_weight, weights.state_weight, weights.input_bias, weights.state_bias):
            weight.uniform_(-bound, bound)
        for weight in [*weights.logit_weight, weights.value_weight]:
            nn.init.orthogonal_(weight, gain=0.01)
